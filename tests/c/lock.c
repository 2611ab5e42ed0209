/* lock FILE KIND [START LENGTH]: takes an exclusive lock without waiting, says "held" or "refused", and keeps it until
 * standard input ends.
 *
 * flock    on the open file
 * posix    on bytes of the file, all of them if none are given
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

int main(int count, char **arguments) {
  if (count != 3 && count != 5) return 2;
  int fd = open(arguments[1], O_RDWR);
  if (fd < 0) {
    perror(arguments[1]);
    return 1;
  }
  int result;
  if (!strcmp(arguments[2], "flock")) {
    result = flock(fd, LOCK_EX | LOCK_NB);
  } else {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (count == 5) {
      lock.l_start = atol(arguments[3]);
      lock.l_len = atol(arguments[4]);
    }
    result = fcntl(fd, F_SETLK, &lock);
  }
  if (result && errno != EAGAIN && errno != EACCES) {
    perror("lock");
    return 1;
  }
  puts(result ? "refused" : "held");
  fflush(stdout);
  char line[16];
  while (fgets(line, sizeof line, stdin)) {
  }
  return 0;
}
