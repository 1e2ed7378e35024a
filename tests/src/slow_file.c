/* A file that is slow. Preloaded into a process, has it wait where it opens the file that SLOW_FILE names, until it can
 * read a byte from the pipe that SLOW_PIPE names. Before that it adds a byte to the file that SLOW_WAITS names. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

typedef int opens(const char *path, int flags, ...);

static int opened(const char *name, const char *path, int flags, mode_t mode) {
    opens *system = (opens *)dlsym(RTLD_NEXT, name);
    const char *slow = getenv("SLOW_FILE"), *pipe = getenv("SLOW_PIPE"), *waits = getenv("SLOW_WAITS");
    if (slow && pipe && waits && !strcmp(path, slow)) {
        char byte = 0;
        int from = system(pipe, O_RDONLY | O_CLOEXEC), to = system(waits, O_WRONLY | O_APPEND | O_CLOEXEC);
        if (from < 0 || to < 0 || write(to, &byte, 1) != 1 || read(from, &byte, 1) < 0)
            abort();
        close(from);
        close(to);
    }
    return system(path, flags, mode);
}

#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more); \
        return opened(#name, path, flags, mode); \
    }

OPENS(open)
OPENS(open64)
