/* A number that one thread writes and another reads without a lock between them.  Who
   reads it sees what was written before it. */
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

/* Make it `after`, if it is `before`; 0 where it is not. */
static inline int
ku_atomic_exchange(ku_atomic *number, long before, long after)
{
    return _InterlockedCompareExchange(number, after, before) == before;
}

#else

static inline void
ku_atomic_set(ku_atomic *number, long value)
{
    __atomic_store_n(number, value, __ATOMIC_RELEASE);
}

static inline long
ku_atomic_get(const ku_atomic *number)
{
    return __atomic_load_n(number, __ATOMIC_ACQUIRE);
}

/* Make it `after`, if it is `before`; 0 where it is not. */
static inline int
ku_atomic_exchange(ku_atomic *number, long before, long after)
{
    return __atomic_compare_exchange_n(number, &before, after, 0, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE);
}

#endif
#endif
