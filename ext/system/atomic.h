/* A number that threads share without a lock.  A thread that reads a value also sees
   everything that was written before that value was (release and acquire). */
#ifndef PYKEYUPDATE_ATOMIC_H
#define PYKEYUPDATE_ATOMIC_H

#include <stdint.h>

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

/* A variable of any type that one thread at a time writes, and that others may read at
   any time.  The writer reads it as any other and writes it by KU_SHOW(), the others read
   it by KU_SEE(): they get one of its values, and learn nothing of other variables.  This
   costs what a plain access does, which it is where a word has 32 bits (two halves of a
   wider number may then be of two values) and for Microsoft's compiler. */
#if defined(_MSC_VER) || UINTPTR_MAX < UINT64_MAX
#  define KU_SHOW(variable, value) ((void)((variable) = (value)))
#  define KU_SEE(variable) (variable)
#else
#  define KU_SHOW(variable, value)                                                     \
      __atomic_store_n(&(variable), (value), __ATOMIC_RELAXED)
#  define KU_SEE(variable) __atomic_load_n(&(variable), __ATOMIC_RELAXED)
#endif

#endif
