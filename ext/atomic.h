/* A number that one thread writes and another reads without a lock between them. */
#ifndef PYKEYUPDATE_ATOMIC_H
#define PYKEYUPDATE_ATOMIC_H

typedef volatile long ku_atomic;

#ifdef _MSC_VER
#  include <intrin.h>

static inline void
ku_atomic_set(ku_atomic *number, long value)
{
    (void)_InterlockedExchange(number, value);
}

static inline long
ku_atomic_get(const ku_atomic *number)
{
    return _InterlockedCompareExchange((ku_atomic *)number, 0, 0);
}

#else

static inline void
ku_atomic_set(ku_atomic *number, long value)
{
    __atomic_store_n(number, value, __ATOMIC_RELAXED);
}

static inline long
ku_atomic_get(const ku_atomic *number)
{
    return __atomic_load_n(number, __ATOMIC_RELAXED);
}

#endif
#endif
