#include "keys/key_clock.h"

#include "system/atomic.h"

#include <limits.h>

static ku_atomic clock_offset; /* seconds: 32 bits hold 68 years */

static ku_time
put_forward(ku_time time)
{
    return time + (ku_time)ku_atomic_get(&clock_offset) * 1000000;
}

ku_time
ku_key_clock(void)
{
    return put_forward(ku_now());
}

ku_time
ku_key_clock_roughly(void)
{
    return put_forward(ku_now_roughly());
}

void
ku_advance_key_clock(ku_time by)
{
    long before, after;
    do {
        before = ku_atomic_get(&clock_offset);
        ku_time sum = before + by / 1000000;
        after = sum < LONG_MAX ? (long)sum : LONG_MAX;
    } while (!ku_atomic_exchange(&clock_offset, before, after));
}
