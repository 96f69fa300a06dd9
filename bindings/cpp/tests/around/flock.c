/* A role lock of the specification of the in-place channel, taken and probed. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <zerobuffer.h>

int main(void) {
    FILE *file = tmpfile();
    if (file == NULL) return 1;
    int fd = fileno(file);
SNIPPET
    /* One's own lock is no obstacle: the probe says that it is free. */
    return l.l_type == F_UNLCK ? 0 : 2;
}
