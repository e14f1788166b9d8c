#define _GNU_SOURCE 1 /* MSG_DONTWAIT under -std=c11 */
#include "system/wire.h"

#ifdef _WIN32
#  include <winsock2.h>
#else
#  include <errno.h>
#  include <poll.h>
#  include <sys/socket.h>
#  include <unistd.h>
#endif

#define MAX_CALL_LENGTH (1 << 30)
#define DRAIN_LENGTH 16384

#ifdef _WIN32

/* Winsock has no MSG_DONTWAIT, and shutdown() in another thread does not end a recv() or
   send() that waits ("subsequent calls" alone, says its documentation).  So never wait in
   either, and ask select() first.  A socket that select() reports writable takes a send()
   of any size at once, into Winsock's own buffer.

   select() reports errors and the end as readiness.  Its third set would add urgent data,
   which a peer may send at any time, and which recv() does not return. */
static int
select_ready(ku_socket socket, int events, long microseconds)
{
    fd_set reads, writes;
    struct timeval limit = {microseconds / 1000000, microseconds % 1000000};
    FD_ZERO(&reads);
    FD_ZERO(&writes);
    if (events & KU_READABLE) {
        FD_SET(socket, &reads);
    }
    if (events & KU_WRITABLE) {
        FD_SET(socket, &writes);
    }
    if (select(0, &reads, &writes, NULL, &limit) < 0) {
        return KU_WIRE_ERROR;
    }
    return (FD_ISSET(socket, &reads) ? KU_READABLE : 0)
           | (FD_ISSET(socket, &writes) ? KU_WRITABLE : 0);
}

static long
failure_of(int *error)
{
    *error = WSAGetLastError();
    return *error == WSAEWOULDBLOCK ? KU_WIRE_WOULD_BLOCK : KU_WIRE_ERROR;
}

long
ku_wire_receive(ku_socket socket, char *data, size_t length, int how, int *error)
{
    int is_ready = select_ready(socket, KU_READABLE, 0);
    if (is_ready <= 0) {
        return is_ready == 0 ? KU_WIRE_WOULD_BLOCK : failure_of(error);
    }
    int got =
        recv(socket, data, (int)(length < MAX_CALL_LENGTH ? length : MAX_CALL_LENGTH),
             how & KU_PEEKS ? MSG_PEEK : 0);
    return got >= 0 ? got : failure_of(error);
}

long
ku_wire_send(ku_socket socket, const char *data, size_t length, int may_wait,
             int *error)
{
    (void)may_wait;
    int is_ready = select_ready(socket, KU_WRITABLE, 0);
    if (is_ready <= 0) {
        return is_ready == 0 ? KU_WIRE_WOULD_BLOCK : failure_of(error);
    }
    int sent = send(socket, data,
                    (int)(length < MAX_CALL_LENGTH ? length : MAX_CALL_LENGTH), 0);
    return sent >= 0 ? sent : failure_of(error);
}

int
ku_wire_is_gone(int error)
{
    return error == WSAECONNRESET || error == WSAECONNABORTED || error == WSAESHUTDOWN;
}

int
ku_wire_may_pass(int error)
{
    return error == WSAENOBUFS;
}

/* Wait in slices: only looking again shows that another thread has closed the socket,
   or that Ctrl-C was pressed. */
#  define WAIT_SLICE 100000

int
ku_wire_wait(ku_socket socket, int events, ku_time deadline, int *error)
{
    ku_time left = ku_time_left(deadline);
    int is_ready =
        select_ready(socket, events,
                     (long)(left == KU_NEVER || left > WAIT_SLICE ? WAIT_SLICE : left));
    if (is_ready < 0) {
        return (int)failure_of(error);
    }
    return is_ready != 0                 ? is_ready
           : ku_time_left(deadline) == 0 ? KU_WIRE_TIMED_OUT
                                         : KU_WIRE_SIGNAL;
}

void
ku_wire_wake(ku_socket socket)
{
    (void)shutdown(socket, SD_BOTH);
}

void
ku_wire_close(ku_socket socket)
{
    (void)closesocket(socket);
}

#else

static long
failure_of(int *error)
{
    *error = errno;
    if (errno == EINTR) {
        return KU_WIRE_SIGNAL;
    }
    return errno == EAGAIN || errno == EWOULDBLOCK ? KU_WIRE_WOULD_BLOCK
                                                   : KU_WIRE_ERROR;
}

long
ku_wire_receive(ku_socket socket, char *data, size_t length, int how, int *error)
{
    int flags = (how & KU_WAITS ? 0 : MSG_DONTWAIT) | (how & KU_PEEKS ? MSG_PEEK : 0);
    ssize_t got =
        recv(socket, data, length < MAX_CALL_LENGTH ? length : MAX_CALL_LENGTH, flags);
    return got >= 0 ? (long)got : failure_of(error);
}

#  ifdef __APPLE__
/* On a blocking socket MSG_DONTWAIT does not keep send() from waiting (XNU's
   sosendcheck() looks only at the socket).  If poll() reports the socket writable,
   there is room for at least the low-water mark. */
#    define LOW_WATER_MARK 2048

static int
has_no_room(ku_socket socket)
{
    struct pollfd polled = {.fd = socket, .events = POLLOUT};
    return poll(&polled, 1, 0) == 0;
}
#  endif

/* Python itself ignores SIGPIPE, unless a program asks for it. */
long
ku_wire_send(ku_socket socket, const char *data, size_t length, int may_wait,
             int *error)
{
    int flags = may_wait ? 0 : MSG_DONTWAIT;
#  ifdef __APPLE__
    if (!may_wait && has_no_room(socket)) {
        return KU_WIRE_WOULD_BLOCK;
    }
    if (!may_wait && length > LOW_WATER_MARK) {
        length = LOW_WATER_MARK;
    }
#  endif
#  ifdef MSG_NOSIGNAL
    flags |= MSG_NOSIGNAL;
#  endif
    ssize_t sent =
        send(socket, data, length < MAX_CALL_LENGTH ? length : MAX_CALL_LENGTH, flags);
    return sent >= 0 ? (long)sent : failure_of(error);
}

int
ku_wire_is_gone(int error)
{
    return error == EPIPE || error == ECONNRESET;
}

int
ku_wire_may_pass(int error)
{
    return error == ENOBUFS || error == ENOMEM;
}

int
ku_wire_wait(ku_socket socket, int events, ku_time deadline, int *error)
{
    struct pollfd polled = {.fd = socket};
    polled.events = (short)((events & KU_READABLE ? POLLIN : 0)
                            | (events & KU_WRITABLE ? POLLOUT : 0));
    ku_time left = ku_time_left(deadline);
    ku_time milliseconds = left == KU_NEVER ? -1 : (left + 999) / 1000;
    int count =
        poll(&polled, 1,
             milliseconds > MAX_CALL_LENGTH ? MAX_CALL_LENGTH : (int)milliseconds);
    if (count < 0) {
        return (int)failure_of(error);
    }
    if (count == 0) { /* the deadline may be beyond what poll() takes */
        return ku_time_left(deadline) == 0 ? KU_WIRE_TIMED_OUT : KU_WIRE_SIGNAL;
    }
    /* Treat errors and the end as readiness: recv() and send() report them. */
    int readable = polled.revents & (POLLIN | POLLERR | POLLHUP | POLLNVAL);
    int writable = polled.revents & (POLLOUT | POLLERR | POLLHUP | POLLNVAL);
    return ((readable ? KU_READABLE : 0) | (writable ? KU_WRITABLE : 0)) & events;
}

void
ku_wire_wake(ku_socket socket)
{
    (void)shutdown(socket, SHUT_RDWR);
}

void
ku_wire_close(ku_socket socket)
{
    (void)close(socket);
}

#endif

void
ku_wire_drain(ku_socket socket)
{
    char dropped[DRAIN_LENGTH];
    int ignored;
    (void)ku_wire_receive(socket, dropped, sizeof(dropped), 0, &ignored);
}
