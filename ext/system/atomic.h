/* A number that threads share without a lock.  A thread that reads a value also sees
   everything that was written before that value was (release and acquire). */
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

/* Set the number to `after` if it is `before`.  Returns 1 if it was, otherwise 0. */
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

/* Set the number to `after` if it is `before`.  Returns 1 if it was, otherwise 0. */
static inline int
ku_atomic_exchange(ku_atomic *number, long before, long after)
{
    return __atomic_compare_exchange_n(number, &before, after, 0, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE);
}

#endif
#endif
