/* What is beneath a managed socket: bytes in, bytes out, and waiting. */
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

/* What can become of recv() and send(); a number of bytes otherwise, 0 being the
   end of what the peer sends. */
enum {
    KU_WIRE_ERROR = -1,
    KU_WIRE_WOULD_BLOCK = -2,
    KU_WIRE_SIGNAL = -3,
    KU_WIRE_TIMED_OUT = -4,
};

/* KU_WAITS: as the socket does by itself where it is one that blocks.  KU_PEEKS: the
   bytes stay in the socket. */
enum { KU_WAITS = 1, KU_PEEKS = 2 };

long ku_wire_receive(ku_socket socket, char *data, size_t length, int how, int *error);

/* `may_wait`: as KU_WAITS. */
long ku_wire_send(ku_socket socket, const char *data, size_t length, int may_wait,
                  int *error);

/* Does this error of send() say that the peer has closed the connection? */
int ku_wire_is_gone(int error);

/* Or can it be tried again? */
int ku_wire_may_pass(int error);

/* Wait until the socket is ready for one of `events`, and say which; otherwise
   as above. */
int ku_wire_wait(ku_socket socket, int events, ku_time deadline, int *error);

/* End the connection in both directions, which wakes all that wait on it. */
void ku_wire_wake(ku_socket socket);
void ku_wire_close(ku_socket socket);

/* Take what has come and drop it: a socket that is closed with data unread breaks
   the connection (RST), and the peer may lose what we sent last. */
void ku_wire_drain(ku_socket socket);

#endif
