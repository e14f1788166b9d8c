#define _GNU_SOURCE 1 /* clock_gettime() under -std=c11 */
#include "system/clock.h"

#ifdef _WIN32
#  include <windows.h>
#else
#  include <time.h>
#endif

/* The longest timeout.  Longer ones are cut to this: Windows' locks wait no longer. */
#define MAX_SECONDS (30.0 * 86400)

#ifdef _WIN32
/* GetTickCount64() would do for deadlines, but not for the age of a key: it stands still
   for 16 ms.  The frequency never changes, and asking for it is no system call. */
ku_time
ku_now(void)
{
    LARGE_INTEGER count, frequency;
    (void)QueryPerformanceCounter(&count);
    (void)QueryPerformanceFrequency(&frequency);
    ku_time per_second = frequency.QuadPart;
    return count.QuadPart / per_second * 1000000
           + count.QuadPart % per_second * 1000000 / per_second;
}

ku_time
ku_now_roughly(void)
{
    return ku_now();
}

void
ku_sleep(ku_time microseconds)
{
    Sleep((DWORD)((microseconds + 999) / 1000));
}
#else
#  ifdef CLOCK_MONOTONIC_COARSE
#    define ROUGH_CLOCK CLOCK_MONOTONIC_COARSE
#  else
#    define ROUGH_CLOCK CLOCK_MONOTONIC
#  endif

static ku_time
time_of(clockid_t clock)
{
    struct timespec now;
    (void)clock_gettime(clock, &now);
    return (ku_time)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

ku_time
ku_now(void)
{
    return time_of(CLOCK_MONOTONIC);
}

ku_time
ku_now_roughly(void)
{
    return time_of(ROUGH_CLOCK);
}

void
ku_sleep(ku_time microseconds)
{
    struct timespec time = {.tv_sec = (time_t)(microseconds / 1000000),
                            .tv_nsec = (long)(microseconds % 1000000) * 1000};
    (void)nanosleep(&time, NULL);
}
#endif

ku_time
ku_deadline(double seconds)
{
    if (seconds < 0) {
        return KU_NEVER;
    }
    if (seconds == 0) {
        return KU_AT_ONCE;
    }
    if (seconds > MAX_SECONDS) {
        seconds = MAX_SECONDS;
    }
    return ku_now() + (ku_time)(seconds * 1e6) + 1;
}

ku_time
ku_time_left(ku_time deadline)
{
    if (deadline == KU_NEVER || deadline == KU_AT_ONCE) {
        return deadline;
    }
    ku_time left = deadline - ku_now();
    return left > 0 ? left : 0;
}
