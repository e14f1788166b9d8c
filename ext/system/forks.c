#include "system/forks.h"

#include <Python.h>

#include "system/mutex.h"

unsigned long ku_forks, ku_forks_made, ku_forker;

static void
count_fork_made(void)
{
    ku_forks_made++;
}

static void
count_fork_in_child(void)
{
    ku_forks++;
    ku_forks_made++;
    ku_forker = PyThread_get_thread_ident();
}

int
ku_forks_count(void)
{
    static ku_mutex once = KU_MUTEX_INITIALIZER;
    static int counting;
    ku_mutex_lock(&once);
    if (!counting) {
        counting = ku_at_fork(NULL, count_fork_made, count_fork_in_child) == 0;
    }
    int result = counting ? 0 : -1;
    ku_mutex_unlock(&once);
    return result;
}

#ifdef _WIN32
int
ku_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    (void)prepare, (void)parent, (void)child;
    return 0;
}
#else
int
ku_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    return pthread_atfork(prepare, parent, child);
}
#endif
