/* Notices fork(), whoever calls it.  Python's os.register_at_fork() would not do: its
   functions run in an order of their own, and do not run at all when C code forks. */
#ifndef PYKEYUPDATE_FORKS_H
#define PYKEYUPDATE_FORKS_H

/* Counted since the first ku_forks_count(): `ku_forks` is how many forks led to this
   process, `ku_forks_made` how many fork() calls this process and its ancestors
   have made.  `ku_forker` is the thread that made the last one that led here: of the
   threads that there were, only it exists.  All interpreters share them. */
extern unsigned long ku_forks, ku_forks_made, ku_forker;

/* Start counting; later calls do nothing.  Returns 0, or -1 if out of memory. */
int ku_forks_count(void);

/* Have these functions called in the thread that forks: prepare() before the fork, and
   afterwards parent() and child() in the two processes.  Returns 0, or nonzero if out
   of memory.  Where nothing forks (Windows) they are never called. */
int ku_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void));

#endif
