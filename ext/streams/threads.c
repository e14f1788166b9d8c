#include "streams/threads.h"

#define ENTRY_PATIENCE 1000000 /* microseconds: more than a step takes */
#define SIGNAL_INTERVAL 20000  /* microseconds */

int
ku_threads_are_closed(const struct ku_call *call)
{
    return ku_atomic_get(&call->pump->closed) != 0;
}

int
ku_threads_enter(struct ku_call *call)
{
    struct ku_monitor *monitor = &call->pump->monitor;
    if (!ku_monitor_any_is_mine() || ku_monitor_is_mine(monitor)) {
        ku_monitor_enter(monitor);
    }
    else if (!ku_monitor_enter_within(monitor, ENTRY_PATIENCE)) {
        return -1;
    }
    call->pump->users++;
    call->bio = ku_tlsbio_of(call->tls.libssl, call->tls.ssl);
    call->signals_seen = ku_now();
    return 0;
}

void
ku_threads_give_up_role(struct ku_pump *pump, unsigned long *taken, int *mine)
{
    if (*mine) {
        *taken = *mine = 0;
        ku_monitor_announce(&pump->monitor);
    }
}

void
ku_threads_exit(struct ku_call *call)
{
    struct ku_pump *pump = call->pump;
    ku_threads_give_up_role(pump, &pump->receiving, &call->receives);
    ku_threads_give_up_role(pump, &pump->sending, &call->sends);
    ku_threads_give_up_role(pump, &pump->writing, &call->writes);
    if (pump->ledger != NULL) {
        ku_take_events(pump->ledger, &call->report);
    }
    pump->users -= pump->users > 0; /* it is 0 already after a fork() */
    ku_threads_leave(pump, call->drains);
}

void
ku_threads_leave(struct ku_pump *pump, int drains)
{
    ku_socket left_open = KU_NO_SOCKET;
    if (ku_atomic_get(&pump->closed)) {
        ku_monitor_announce(&pump->monitor); /* it may have been closed from outside */
        if (pump->users == 0) {
            left_open = pump->left_open;
            pump->left_open = KU_NO_SOCKET;
        }
    }
    ku_monitor_leave(&pump->monitor);
    if (left_open != KU_NO_SOCKET) {
        if (drains) {
            ku_wire_drain(left_open);
        }
        ku_wire_close(left_open);
    }
}

enum ku_progress
ku_threads_let_signals(struct ku_call *call)
{
    return ku_now() - call->signals_seen < SIGNAL_INTERVAL ? KU_DONE : KU_INTERRUPTED;
}

void
ku_threads_pause(struct ku_call *call)
{
    struct ku_pump *pump = call->pump;
    ku_threads_give_up_role(pump, &pump->receiving, &call->receives);
    ku_threads_give_up_role(pump, &pump->sending, &call->sends);
    ku_monitor_leave(&pump->monitor);
}

void
ku_threads_resume(struct ku_call *call)
{
    ku_monitor_enter(&call->pump->monitor);
    call->signals_seen = ku_now();
    call->signals_just_seen = 1;
}

enum ku_progress
ku_threads_wait_for_news(struct ku_call *call, enum ku_progress unready)
{
    switch (ku_monitor_wait(&call->pump->monitor, call->deadline)) {
    case KU_NEWS: return ku_threads_are_closed(call) ? KU_CLOSED_HERE : KU_DONE;
    case KU_SIGNAL: return KU_INTERRUPTED;
    default: return call->deadline == KU_AT_ONCE ? unready : KU_TIMED_OUT;
    }
}

void
ku_threads_take_free_role(unsigned long *taken, int *mine)
{
    *taken = PyThread_get_thread_ident();
    *mine = 1;
}

enum ku_progress
ku_threads_take_role(struct ku_call *call, unsigned long *taken, int *mine,
                     enum ku_progress unready)
{
    enum ku_progress progress = ku_threads_are_closed(call) ? KU_CLOSED_HERE : KU_DONE;
    while (progress == KU_DONE && *taken && !*mine) {
        progress = ku_threads_wait_for_news(call, unready);
    }
    if (progress == KU_DONE) {
        ku_threads_take_free_role(taken, mine);
    }
    return progress;
}
