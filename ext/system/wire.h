/* The socket beneath a managed connection: receive bytes, send bytes, wait. */
#ifndef PYKEYUPDATE_WIRE_H
#define PYKEYUPDATE_WIRE_H

#include "system/clock.h"

#include <stddef.h>

#ifdef _WIN32
typedef uintptr_t ku_socket;
#  define KU_NO_SOCKET ((ku_socket) - 1)
#else
typedef int ku_socket;
#  define KU_NO_SOCKET (-1)
#endif

enum { KU_READABLE = 1, KU_WRITABLE = 2 };

/* What ku_wire_receive() and ku_wire_send() return if they move no bytes.  Otherwise
   they return the number of bytes; ku_wire_receive() returns 0 once the peer sends no
   more. */
enum {
    KU_WIRE_ERROR = -1,
    KU_WIRE_WOULD_BLOCK = -2,
    KU_WIRE_SIGNAL = -3,
    KU_WIRE_TIMED_OUT = -4,
};

/* KU_WAITS: block, if the socket is a blocking one (not on Windows).  KU_PEEKS: leave
   the bytes in the socket. */
enum { KU_WAITS = 1, KU_PEEKS = 2 };

long ku_wire_receive(ku_socket socket, char *data, size_t length, int how, int *error);

/* `may_wait`: block, if the socket is a blocking one (not on Windows).  Both functions
   store the system's error number in `error` with KU_WIRE_ERROR. */
long ku_wire_send(ku_socket socket, const char *data, size_t length, int may_wait,
                  int *error);

/* Does this error of send() mean that the peer has closed the connection? */
int ku_wire_is_gone(int error);

/* Does this error of send() mean only that the system lacks memory, so that the same
   send() can be tried again? */
int ku_wire_may_pass(int error);

/* Wait until the socket is ready for one of `events`.  Returns the events that it is
   ready for, KU_WIRE_TIMED_OUT at the deadline, KU_WIRE_SIGNAL if the caller should run
   signal handlers and call again, or KU_WIRE_ERROR. */
int ku_wire_wait(ku_socket socket, int events, ku_time deadline, int *error);

/* Shut down both directions of the connection, which wakes all threads that wait on
   it. */
void ku_wire_wake(ku_socket socket);
void ku_wire_close(ku_socket socket);

/* Receive and drop up to 16,384 bytes of what has arrived.  Closing a socket with
   unread data resets the connection (RST), and the peer may then lose what we sent
   last. */
void ku_wire_drain(ku_socket socket);

#endif
