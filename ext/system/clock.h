/* Deadlines: microseconds on a clock that nobody sets. */
#ifndef PYKEYUPDATE_CLOCK_H
#define PYKEYUPDATE_CLOCK_H

#include <stdint.h>

typedef int64_t ku_time;

#define KU_NEVER ((ku_time) - 1) /* a deadline, and the time left to it */
#define KU_AT_ONCE ((ku_time)0)  /* a deadline that has always passed */

ku_time ku_now(void);
void ku_sleep(ku_time microseconds);

/* The deadline in `seconds` from now; negative: never. */
ku_time ku_deadline(double seconds);

/* Microseconds to a deadline, 0 once it has passed. */
ku_time ku_time_left(ku_time deadline);

#endif
