/* fork(), noticed wherever it comes from: the functions of os.register_at_fork() are
   called in an order of their own, and not at all where C code forks. */
#ifndef PYKEYUPDATE_FORKS_H
#define PYKEYUPDATE_FORKS_H

#ifdef _WIN32

static inline int
ku_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    (void)prepare, (void)parent, (void)child;
    return 0;
}

#else
#  include <pthread.h>

/* Have these called in the thread that forks, before and after; NULL for none.  0, or
   not where there is no memory. */
static inline int
ku_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    return pthread_atfork(prepare, parent, child);
}

#endif
#endif
