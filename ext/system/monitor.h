/* Rule of this folder (system/): what any C program might need; nothing here knows of
   TLS or of Python objects.

   A monitor: a lock that its owner may take again, with a place to wait for news.

   ku_monitor_enter() may block, so the caller must not hold the GIL: the thread inside
   may need it, for a callback of the ssl module that OpenSSL calls.  A caller that
   holds the GIL uses ku_monitor_try_enter(), and releases the GIL before
   ku_monitor_enter().

   A thread that waits to enter is the next one inside.  A thread that leaves and comes
   back at once, such as one that writes megabytes, queues behind it (`turnstile`).

   A thread may be inside several monitors: a callback in a step of one connection may
   use another connection.  Two threads that did this crosswise would wait for each
   other forever.  So a thread that is inside any monitor enters a further one with a
   time limit (ku_monitor_enter_within()).  When it comes back after a wait it may use
   ku_monitor_enter(): a thread that is inside by then has such a limit of its own,
   reaches it, and leaves. */
#ifndef PYKEYUPDATE_MONITOR_H
#define PYKEYUPDATE_MONITOR_H

#include <Python.h>

#include "system/clock.h"
#include "system/mutex.h"

struct ku_waiter;

struct ku_monitor {
    ku_mutex mutex;
    ku_mutex turnstile;
    unsigned long queued;      /* threads that wait to enter */
    unsigned long owner;       /* the thread inside, or 0 */
    int depth;                 /* how often it has entered */
    struct ku_waiter *waiters; /* threads in ku_monitor_wait() */
};

enum ku_wake { KU_NEWS, KU_TOO_LATE, KU_SIGNAL };

/* Returns 0, or -1 if the system has no more mutexes. */
int ku_monitor_create(struct ku_monitor *monitor);
void ku_monitor_destroy(struct ku_monitor *monitor);

/* After a fork(), in the child: forget the threads that are not here.  `survivor` is the
   one that is; it remains inside if it was.  Returns as ku_monitor_create(). */
int ku_monitor_forked(struct ku_monitor *monitor, unsigned long survivor);

int ku_monitor_is_mine(struct ku_monitor *monitor);

/* Is this thread inside any monitor? */
int ku_monitor_any_is_mine(void);

void ku_monitor_enter(struct ku_monitor *monitor);
int ku_monitor_try_enter(struct ku_monitor *monitor);

/* Enter, but give up after `patience` microseconds.  Returns 1, or 0 if other threads
   were inside for all that time.  This thread must not be inside this monitor yet. */
int ku_monitor_enter_within(struct ku_monitor *monitor, ku_time patience);
void ku_monitor_leave(struct ku_monitor *monitor);

/* Leave, wait for an announcement or until `deadline`, and enter again.  The caller has
   entered exactly once and does not hold the GIL.  Returns KU_NEWS; KU_TOO_LATE; or
   KU_SIGNAL if a signal interrupted the wait, even if there is news. */
enum ku_wake ku_monitor_wait(struct ku_monitor *monitor, ku_time deadline);

/* Wake all threads in ku_monitor_wait().  The caller is inside. */
void ku_monitor_announce(struct ku_monitor *monitor);

#endif
