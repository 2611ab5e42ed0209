/* hold FILE MODE: keeps FILE in use in a way that no open handle of the mount shows, says "ready", and at the next
 * line of standard input does what MODE says, then says "done".
 *
 * shared   mapped shared for writing, descriptor closed; then writes "HELD" at 100000 through the mapping
 * private  mapped privately, descriptor closed; then prints the byte at 100000 through the mapping
 * open     open for writing; then writes "HELD" at 100000
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int count, char **arguments) {
  if (count != 3) return 2;
  const char *mode = arguments[2];
  int is_private = !strcmp(mode, "private");
  int fd = open(arguments[1], is_private ? O_RDONLY : O_RDWR);
  struct stat stat;
  if (fd < 0 || fstat(fd, &stat)) {
    perror(arguments[1]);
    return 1;
  }
  char *map = NULL;
  if (strcmp(mode, "open")) {
    int protection = is_private ? PROT_READ : PROT_READ | PROT_WRITE;
    map = mmap(NULL, stat.st_size, protection, is_private ? MAP_PRIVATE : MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
      perror("mmap");
      return 1;
    }
    if (!is_private) map[99999] = map[99999]; /* dirty: later writes do not move the file's times */
    close(fd);
  }
  puts("ready");
  fflush(stdout);
  char line[16];
  if (!fgets(line, sizeof line, stdin)) return 1;
  if (is_private)
    printf("%d\n", (unsigned char)map[100000]);
  else if (map)
    memcpy(map + 100000, "HELD", 4);
  else if (pwrite(fd, "HELD", 4, 100000) != 4)
    perror("pwrite");
  puts("done");
  fflush(stdout);
  fgets(line, sizeof line, stdin);
  return 0;
}
