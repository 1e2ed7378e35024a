/* A clock that jumps. Preloaded into a process, it adds to what the system's clocks say what a file says, the one
 * that CHAOS_CLOCK names: seconds for the time of day, and milliseconds for the monotonic clock, which can be made
 * to stand still as well. What the system is asked to wait for until a time is told in the system's own. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct clock {
    int64_t real_seconds, monotonic_milliseconds;
    /* The time in nanoseconds at which the monotonic clock stands; 0 when it goes. */
    int64_t stands_at;
};

static const struct clock nothing;
static const volatile struct clock *jumped = &nothing;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CHAOS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof(struct clock), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED)
        jumped = mapped;
}

static int is_monotonic(clockid_t id) {
    return id == CLOCK_MONOTONIC || id == CLOCK_MONOTONIC_RAW || id == CLOCK_MONOTONIC_COARSE || id == CLOCK_BOOTTIME;
}

static void add(struct timespec *time, int64_t milliseconds) {
    time->tv_sec += milliseconds / 1000;
    time->tv_nsec += milliseconds % 1000 * 1000000;
    if (time->tv_nsec >= 1000000000)
        time->tv_sec++, time->tv_nsec -= 1000000000;
    if (time->tv_nsec < 0)
        time->tv_sec--, time->tv_nsec += 1000000000;
}

int clock_gettime(clockid_t id, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, time);
    if (failed)
        return failed;
    int64_t stands_at = jumped->stands_at;
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)
        time->tv_sec += jumped->real_seconds;
    else if (is_monotonic(id) && stands_at)
        time->tv_sec = stands_at / 1000000000, time->tv_nsec = stands_at % 1000000000;
    else if (is_monotonic(id))
        add(time, jumped->monotonic_milliseconds);
    return 0;
}

int gettimeofday(struct timeval *time, void *zone) {
    (void)zone;
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now))
        return -1;
    time->tv_sec = now.tv_sec, time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now = {0, 0};
    clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}

int clock_nanosleep(clockid_t id, int flags, const struct timespec *request, struct timespec *left) {
    static int (*real)(clockid_t, int, const struct timespec *, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, int, const struct timespec *, struct timespec *))dlsym(RTLD_NEXT, "clock_nanosleep");
    struct timespec until = *request;
    if (flags & TIMER_ABSTIME && is_monotonic(id))
        add(&until, -jumped->monotonic_milliseconds);
    if (flags & TIMER_ABSTIME && id == CLOCK_REALTIME)
        until.tv_sec -= jumped->real_seconds;
    return real(id, flags, &until, left);
}

/* Rust's own locks wait until a time by this call. */
long syscall(long number, ...) {
    static long (*real)(long, ...);
    if (!real)
        real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    long given[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        given[i] = va_arg(list, long);
    va_end(list);
    struct timespec until;
    if (number == SYS_futex && (given[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET && given[3]) {
        until = *(const struct timespec *)given[3];
        if (given[1] & FUTEX_CLOCK_REALTIME)
            until.tv_sec -= jumped->real_seconds;
        else
            add(&until, -jumped->monotonic_milliseconds);
        given[3] = (long)&until;
    }
    return real(number, given[0], given[1], given[2], given[3], given[4], given[5]);
}
