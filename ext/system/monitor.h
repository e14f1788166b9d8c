/* A lock that a thread may take again, with a place to wait for news: what the
   textbooks call a monitor.

   enter() may wait, so the caller must not hold the GIL: the thread inside may
   need it (a callback of the ssl module's, called by OpenSSL).  With the GIL use
   try_enter(), and let it go before enter().

   A thread that waits to enter is the next one inside: one that leaves and comes
   back at once, as a writer of megabytes does, queues behind it (`turnstile`).

   A thread may be inside of several: a callback in a step of one connection uses
   another.  Two threads that do so crosswise would wait for each other for ever, so
   a thread that is inside of any enters the first time for a while only
   (ku_monitor_enter_within()).  To come back after a wait it may use enter(): whoever
   is inside then has met that limit, and goes. */
#ifndef PYKEYUPDATE_MONITOR_H
#define PYKEYUPDATE_MONITOR_H

#include <Python.h>

#include "system/clock.h"
#include "system/mutex.h"

struct ku_waiter;

struct ku_monitor {
    ku_mutex mutex;
    ku_mutex turnstile;
    unsigned long queued;      /* threads before it, or between both */
    unsigned long owner;       /* the thread inside; 0: none */
    int depth;                 /* how often it has entered */
    struct ku_waiter *waiters; /* in wait() */
};

enum ku_wake { KU_NEWS, KU_TOO_LATE, KU_SIGNAL };

/* 0, or -1 where the system has no more of them. */
int ku_monitor_create(struct ku_monitor *monitor);
void ku_monitor_destroy(struct ku_monitor *monitor);

int ku_monitor_is_mine(struct ku_monitor *monitor);

/* Is this thread inside of any monitor? */
int ku_monitor_any_is_mine(void);

void ku_monitor_enter(struct ku_monitor *monitor);
int ku_monitor_try_enter(struct ku_monitor *monitor);

/* Enter, unless others are inside for longer than so many microseconds: then 0.  Not
   where this thread is inside already. */
int ku_monitor_enter_within(struct ku_monitor *monitor, ku_time patience);
void ku_monitor_leave(struct ku_monitor *monitor);

/* Leave, wait for an announcement or until `deadline`, and enter again.  The
   caller has entered once. */
enum ku_wake ku_monitor_wait(struct ku_monitor *monitor, ku_time deadline);

/* Wake all that wait.  The caller is inside. */
void ku_monitor_announce(struct ku_monitor *monitor);

#endif
