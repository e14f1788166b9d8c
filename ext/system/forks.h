/* fork(), wherever it comes from: the functions of os.register_at_fork() are called in
   an order of their own, and not at all where C code forks. */
#ifndef PYKEYUPDATE_FORKS_H
#define PYKEYUPDATE_FORKS_H

/* How often this process has come from a fork(), and how often it or its parents have
   made one, since the first ku_forks_count().  The same for all interpreters. */
extern unsigned long ku_forks, ku_forks_of_parent;

/* Count from now on; 0, or -1 without memory. */
int ku_forks_count(void);

/* Have these called in the thread that forks, before it and after it in both processes.
   0, or not 0 without memory.  Where nothing forks (Windows) they are never called. */
int ku_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void));

#endif
