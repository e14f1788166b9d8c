/* The system's own mutex.  Python's PyThread_type_lock reads the clock each time it is
   taken, and one call enters a connection several times. */
#ifndef PYKEYUPDATE_MUTEX_H
#define PYKEYUPDATE_MUTEX_H

#ifdef _WIN32
#  include <windows.h>

typedef SRWLOCK ku_mutex;

#  define KU_MUTEX_INITIALIZER SRWLOCK_INIT

static inline int
ku_mutex_create(ku_mutex *mutex)
{
    InitializeSRWLock(mutex);
    return 0;
}

static inline void
ku_mutex_destroy(ku_mutex *mutex)
{
    (void)mutex;
}
static inline void
ku_mutex_lock(ku_mutex *mutex)
{
    AcquireSRWLockExclusive(mutex);
}
static inline int
ku_mutex_try(ku_mutex *mutex)
{
    return TryAcquireSRWLockExclusive(mutex) != 0;
}
static inline void
ku_mutex_unlock(ku_mutex *mutex)
{
    ReleaseSRWLockExclusive(mutex);
}

#else
#  include <pthread.h>

typedef pthread_mutex_t ku_mutex;

#  define KU_MUTEX_INITIALIZER PTHREAD_MUTEX_INITIALIZER

/* Returns 0 or an error number. */
static inline int
ku_mutex_create(ku_mutex *mutex)
{
    return pthread_mutex_init(mutex, NULL);
}

static inline void
ku_mutex_destroy(ku_mutex *mutex)
{
    (void)pthread_mutex_destroy(mutex);
}
static inline void
ku_mutex_lock(ku_mutex *mutex)
{
    (void)pthread_mutex_lock(mutex);
}
static inline int
ku_mutex_try(ku_mutex *mutex)
{
    return pthread_mutex_trylock(mutex) == 0;
}
static inline void
ku_mutex_unlock(ku_mutex *mutex)
{
    (void)pthread_mutex_unlock(mutex);
}

#endif
#endif
