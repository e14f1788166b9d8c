#include "system/monitor.h"

/* Threads outside the monitor read `owner` and `queued` without a lock.  A stale
   `owner` does no harm: only the thread itself ever stores its own identifier there, so
   no thread can find its own by mistake.  A thread that reads a stale `queued` merely
   jumps the queue once more. */
#if defined(__GNUC__)
#  define LOAD_NUMBER(place) __atomic_load_n(&(place), __ATOMIC_RELAXED)
#  define STORE_NUMBER(place, value)                                                   \
      __atomic_store_n(&(place), (value), __ATOMIC_RELAXED)
#  define ADD_NUMBER(place, value)                                                     \
      __atomic_fetch_add(&(place), (value), __ATOMIC_RELAXED)
#else
#  define LOAD_NUMBER(place) (*(volatile unsigned long *)&(place))
#  define STORE_NUMBER(place, value) (*(volatile unsigned long *)&(place) = (value))
#  define ADD_NUMBER(place, value)                                                     \
      InterlockedExchangeAdd((volatile long *)&(place), (value))
#endif

#define LOOK_INTERVAL 200 /* microseconds */

/* How many monitors this thread is inside. */
#ifdef _MSC_VER
static __declspec(thread) int monitors_inside;
#else
static _Thread_local int monitors_inside;
#endif

/* One thread in ku_monitor_wait().  The node is on that thread's stack. */
struct ku_waiter {
    PyThread_type_lock news; /* held until there is news */
    struct ku_waiter *next;
};

int
ku_monitor_create(struct ku_monitor *monitor)
{
    monitor->queued = monitor->owner = 0;
    monitor->depth = 0;
    monitor->waiters = NULL;
    if (ku_mutex_create(&monitor->mutex) != 0) {
        return -1;
    }
    if (ku_mutex_create(&monitor->turnstile) != 0) {
        ku_mutex_destroy(&monitor->mutex);
        return -1;
    }
    return 0;
}

int
ku_monitor_forked(struct ku_monitor *monitor, unsigned long survivor)
{
    if (monitor->owner == 0 || monitor->owner != survivor) {
        return ku_monitor_create(monitor);
    }
    monitor->queued = 0;
    monitor->waiters = NULL;
    return ku_mutex_create(&monitor->turnstile) == 0 ? 0 : -1;
}

void
ku_monitor_destroy(struct ku_monitor *monitor)
{
    ku_mutex_destroy(&monitor->mutex);
    ku_mutex_destroy(&monitor->turnstile);
}

int
ku_monitor_is_mine(struct ku_monitor *monitor)
{
    return LOAD_NUMBER(monitor->owner) == PyThread_get_thread_ident();
}

int
ku_monitor_any_is_mine(void)
{
    return monitors_inside > 0;
}

static void
mark_entered(struct ku_monitor *monitor)
{
    STORE_NUMBER(monitor->owner, PyThread_get_thread_ident());
    monitor->depth = 1;
    monitors_inside++;
}

int
ku_monitor_try_enter(struct ku_monitor *monitor)
{
    if (ku_monitor_is_mine(monitor)) {
        monitor->depth++;
        return 1;
    }
    if (LOAD_NUMBER(monitor->queued) != 0 || !ku_mutex_try(&monitor->mutex)) {
        return 0;
    }
    mark_entered(monitor);
    return 1;
}

void
ku_monitor_enter(struct ku_monitor *monitor)
{
    if (!ku_monitor_try_enter(monitor)) {
        ADD_NUMBER(monitor->queued, 1);
        ku_mutex_lock(&monitor->turnstile);
        ku_mutex_lock(&monitor->mutex);
        ku_mutex_unlock(&monitor->turnstile);
        ADD_NUMBER(monitor->queued, -1);
        mark_entered(monitor);
    }
}

/* A thread rarely has to wait here, and no longer than a step lasts, so polling is
   enough.  It does not queue, and so may overtake threads that do. */
int
ku_monitor_enter_within(struct ku_monitor *monitor, ku_time patience)
{
    ku_time end = ku_now() + patience;
    while (!ku_mutex_try(&monitor->mutex)) {
        if (ku_now() >= end) {
            return 0;
        }
        ku_sleep(LOOK_INTERVAL);
    }
    mark_entered(monitor);
    return 1;
}

void
ku_monitor_leave(struct ku_monitor *monitor)
{
    if (--monitor->depth == 0) {
        monitors_inside--;
        STORE_NUMBER(monitor->owner, 0);
        ku_mutex_unlock(&monitor->mutex);
    }
}

/* Take a waiter off the list.  Returns 0 if an announcement has already done so. */
static int
remove_waiter(struct ku_monitor *monitor, struct ku_waiter *waiter)
{
    struct ku_waiter **place = &monitor->waiters;
    while (*place != NULL && *place != waiter) {
        place = &(*place)->next;
    }
    if (*place == NULL) {
        return 0;
    }
    *place = waiter->next;
    return 1;
}

enum ku_wake
ku_monitor_wait(struct ku_monitor *monitor, ku_time deadline)
{
    struct ku_waiter self = {PyThread_allocate_lock(), monitor->waiters};
    ku_time left = ku_time_left(deadline);
    if (self.news == NULL || left == 0) {
        if (self.news != NULL) {
            PyThread_free_lock(self.news);
        }
        return KU_TOO_LATE;
    }
    PyThread_acquire_lock(self.news, NOWAIT_LOCK);
    monitor->waiters = &self;
    ku_monitor_leave(monitor);
    PyLockStatus status = PyThread_acquire_lock_timed(
        self.news, left == KU_NEVER ? -1 : (PY_TIMEOUT_T)left, 1);
    ku_monitor_enter(monitor);
    int announced = !remove_waiter(monitor, &self);
    if (status == PY_LOCK_ACQUIRED || !announced) {
        PyThread_release_lock(self.news);
    }
    PyThread_free_lock(self.news);
    return status == PY_LOCK_INTR ? KU_SIGNAL /* even if there is news */
           : announced            ? KU_NEWS
                                  : KU_TOO_LATE;
}

void
ku_monitor_announce(struct ku_monitor *monitor)
{
    struct ku_waiter *waiter = monitor->waiters;
    monitor->waiters = NULL;
    while (waiter != NULL) {
        /* The thread wakes, but must enter the monitor before its node goes away; and
           we are inside. */
        struct ku_waiter *next = waiter->next;
        PyThread_release_lock(waiter->news);
        waiter = next;
    }
}
