/* The clock for the ages of keys and for windows of time, which tests can advance. */
#ifndef PYKEYUPDATE_KEY_CLOCK_H
#define PYKEYUPDATE_KEY_CLOCK_H

#include "system/clock.h"

ku_time ku_key_clock(void);
void ku_advance_key_clock(ku_time by);

/* The time of its last tick: see ku_now_roughly(). */
ku_time ku_key_clock_roughly(void);

#endif
