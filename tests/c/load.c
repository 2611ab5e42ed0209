/* load LIBRARY: opens it with dlopen, says "ready", waits for a line, calls a function of it and prints the answer. */
#include <dlfcn.h>
#include <stdio.h>

int main(int count, char **arguments) {
  if (count != 2) return 2;
  void *library = dlopen(arguments[1], RTLD_NOW);
  if (!library) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  puts("ready");
  fflush(stdout);
  char line[16];
  if (!fgets(line, sizeof line, stdin)) return 1;
  int (*answer)(void) = (int (*)(void))dlsym(library, "answer");
  printf("%d\n", answer ? answer() : -1);
  return 0;
}
