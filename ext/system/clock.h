/* Deadlines: microseconds on a monotonic clock. */
#ifndef PYKEYUPDATE_CLOCK_H
#define PYKEYUPDATE_CLOCK_H

#include <stdint.h>

typedef int64_t ku_time;

#define KU_NEVER ((ku_time) - 1) /* as a deadline, and as the time left to it */
#define KU_AT_ONCE ((ku_time)0)  /* a deadline that has always passed */

ku_time ku_now(void);

/* The time of the last tick, a few milliseconds ago at most, for a fifth of the price. */
ku_time ku_now_roughly(void);

void ku_sleep(ku_time microseconds);

/* The deadline `seconds` from now: KU_NEVER if negative, KU_AT_ONCE if 0. */
ku_time ku_deadline(double seconds);

/* Microseconds until a deadline: 0 once it has passed, KU_NEVER if it never does. */
ku_time ku_time_left(ku_time deadline);

#endif
