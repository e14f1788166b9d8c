#include "streams/traffic.h"

#include "openssl/questions.h"

#include <stdlib.h>
#include <string.h>

#define MAX_OUTPUT (256 * 1024) /* bytes for a peer that asks and does not read */
#define SEEN_INTERVAL 20000     /* microseconds; by then select() has returned */
#define LOOK_SECONDS 0.002      /* seconds */
#define SIGNAL_GRACE 100        /* microseconds */

/* --- sending, in the role of the sender ------------------------------------------- */

size_t
ku_traffic_output_left(const struct ku_call *call)
{
    return ku_buffer_length(&call->pump->unsent) + ku_buffer_length(&call->bio->output);
}

/* The peer is gone.  Reading goes on: the peer may have said why. */
static void
discard_output(struct ku_call *call)
{
    ku_buffer_drop(&call->pump->unsent, ku_buffer_length(&call->pump->unsent));
    ku_buffer_drop(&call->bio->output, ku_buffer_length(&call->bio->output));
    call->pump->sent_apart = call->bio->flushed = 0;
}

/* Take over what OpenSSL has written.  A server's first session ticket is sent by
   itself, as OpenSSL would send it.  If the client has gone without reading it, then
   the send() of the second ticket fails, which does not matter (ignore_ticket_failure()
   in pump.c), and not the next recv(), which has to return the client's last data or
   its end. */
static void
take_output(struct ku_call *call)
{
    call->pump->unsent = call->bio->output;
    call->pump->sent_apart = call->bio->flushed;
    call->bio->output = (struct ku_buffer){0};
    call->bio->flushed = 0;
}

/* Wait outside the monitor.  A signal that has come since signal handlers last had
   their chance would not interrupt the wait, so give them another chance first.
   Returns as ku_wire_wait(). */
static int
wait_outside(struct ku_call *call, int events)
{
    if (!call->signals_just_seen && ku_now() - call->signals_seen > SIGNAL_GRACE) {
        return KU_WIRE_SIGNAL;
    }
    call->signals_just_seen = 0;
    return ku_wire_wait(call->socket, events, call->deadline, &call->error);
}

/* One send(), outside the monitor.  Returns the number of bytes, or a failure as
   ku_wire_send(). */
static long
send_outside(struct ku_call *call, size_t length, int may_wait)
{
    struct ku_pump *pump = call->pump;
    const char *data = pump->unsent.memory + pump->unsent.start;
    ku_monitor_leave(&pump->monitor);
    long sent = ku_wire_send(call->socket, data, length, may_wait && call->blocks,
                             &call->error);
    if (sent == KU_WIRE_WOULD_BLOCK && may_wait && call->deadline != KU_AT_ONCE) {
        int ready = wait_outside(call, KU_WRITABLE);
        sent = ready > 0 ? 0 : ready;
    }
    ku_monitor_enter(&pump->monitor);
    return sent;
}

/* What a failure of the wire means for the call. */
static enum ku_progress
wire_failure(const struct ku_call *call, long failure, enum ku_progress unready)
{
    switch (failure) {
    case KU_WIRE_WOULD_BLOCK: return unready;
    case KU_WIRE_TIMED_OUT: return KU_TIMED_OUT;
    case KU_WIRE_SIGNAL:
        return ku_threads_are_closed(call) ? KU_CLOSED_HERE : KU_INTERRUPTED;
    default: return ku_threads_are_closed(call) ? KU_CLOSED_HERE : KU_SYSTEM;
    }
}

/* Record that `sent` of `length` bytes have been sent.  Returns KU_DONE to go on. */
static enum ku_progress
note_sent(struct ku_call *call, size_t sent, size_t length, int may_wait)
{
    struct ku_pump *pump = call->pump;
    ku_buffer_drop(&pump->unsent, sent);
    pump->sent_apart -= pump->sent_apart > 0 ? sent : 0;
    ku_monitor_announce(&pump->monitor);
    if (may_wait && call->blocks && sent < length) {
        return KU_INTERRUPTED; /* uninterrupted, it would have sent everything */
    }
    return may_wait ? ku_threads_let_signals(call) : KU_DONE;
}

static enum ku_progress
note_send_failure(struct ku_call *call, long failure)
{
    if (failure == KU_WIRE_ERROR && !ku_wire_may_pass(call->error)) {
        call->pump->send_error = call->error;
        discard_output(call);
    }
    return wire_failure(call, failure, KU_WANT_WRITE);
}

static enum ku_progress
send_output(struct ku_call *call, int may_wait)
{
    struct ku_pump *pump = call->pump;
    enum ku_progress progress = KU_DONE;
    while (progress == KU_DONE && ku_traffic_output_left(call) > 0) {
        if (ku_threads_are_closed(call)) {
            return KU_CLOSED_HERE;
        }
        if (ku_buffer_length(&pump->unsent) == 0) {
            take_output(call);
        }
        size_t length =
            pump->sent_apart > 0 ? pump->sent_apart : ku_buffer_length(&pump->unsent);
        long sent = send_outside(call, length, may_wait);
        progress = sent >= 0 ? note_sent(call, (size_t)sent, length, may_wait)
                             : note_send_failure(call, sent);
    }
    return progress;
}

int
ku_traffic_can_send(const struct ku_call *call)
{
    return ku_traffic_output_left(call) > 0 && !call->pump->sending
           && call->socket != KU_NO_SOCKET;
}

/* Send as far as the socket takes it at once, unless there is a sender at work, which
   will see what has been added. */
void
ku_traffic_flush(struct ku_call *call)
{
    if (ku_traffic_can_send(call)) {
        ku_threads_take_free_role(&call->pump->sending, &call->sends);
        (void)send_output(call, 0);
        ku_threads_give_up_role(call->pump, &call->pump->sending, &call->sends);
    }
}

void
ku_traffic_begin_direct(struct ku_call *call)
{
    call->bio->sends = ku_traffic_output_left(call) == 0 && !call->pump->sending
                       && call->socket != KU_NO_SOCKET && !ku_threads_are_closed(call)
                       && call->tls.libssl->SSL_is_init_finished(call->tls.ssl);
    call->bio->socket = call->socket;
}

void
ku_traffic_end_direct(struct ku_call *call)
{
    call->bio->sends = 0;
    if (call->bio->send_error != 0) {
        call->pump->send_error = call->bio->send_error;
        call->bio->send_error = 0;
        discard_output(call);
    }
}

/* What was lost cannot be sent again.  What another thread is sending belongs to it. */
static enum ku_progress
cannot_send(struct ku_call *call)
{
    if (!call->pump->sending) {
        discard_output(call);
    }
    call->error = call->pump->send_error;
    return KU_SYSTEM;
}

enum ku_progress
ku_traffic_send(struct ku_call *call)
{
    struct ku_pump *pump = call->pump;
    if (pump->send_error != 0) {
        return cannot_send(call);
    }
    if (ku_traffic_output_left(call) == 0 && !pump->sending) {
        return KU_DONE;
    }
    enum ku_progress progress =
        ku_threads_take_role(call, &pump->sending, &call->sends, KU_WANT_WRITE);
    if (progress == KU_DONE) {
        progress = send_output(call, 1);
        ku_threads_give_up_role(pump, &pump->sending, &call->sends);
    }
    /* Another thread that had the role may have failed, and dropped what was ours. */
    return progress == KU_DONE && pump->send_error != 0 ? cannot_send(call) : progress;
}

/* --- receiving, in the role of the receiver --------------------------------------- */

void
ku_traffic_take_kept_byte(struct ku_call *call)
{
    char byte;
    if (call->pump->kept_byte && !ku_threads_are_closed(call)
        && call->socket != KU_NO_SOCKET) {
        (void)ku_wire_receive(call->socket, &byte, 1, 0, &call->error);
        call->pump->kept_byte = 0;
    }
}

/* Before the kept byte is taken, give a reader in select() the time to see it, unless
   more follows it in the socket.  (Nothing ever follows the end of the stream.) */
static enum ku_progress
let_kept_byte_be_seen(struct ku_call *call)
{
    struct ku_pump *pump = call->pump;
    while (pump->kept_byte && ku_now() < pump->kept_since + SEEN_INTERVAL) {
        char bytes[2];
        if (ku_wire_receive(call->socket, bytes, 2, KU_PEEKS, &call->error) == 2) {
            break;
        }
        if (call->deadline == KU_AT_ONCE) {
            return KU_WANT_READ;
        }
        if (ku_monitor_wait(&pump->monitor, ku_deadline(LOOK_SECONDS)) == KU_SIGNAL) {
            return KU_INTERRUPTED;
        }
        if (ku_threads_are_closed(call)) {
            return KU_CLOSED_HERE;
        }
    }
    return KU_DONE;
}

/* One recv(), outside the monitor.  Returns the number of bytes, or a failure as
   ku_wire_receive().  KU_WIRE_SIGNAL also means "look again": the socket can be
   written. */
static long
receive_outside(struct ku_call *call, char *memory, size_t length, int how)
{
    int sends = ku_traffic_can_send(call);
    int events = sends && ku_traffic_output_left(call) > MAX_OUTPUT ? KU_WRITABLE
                 : sends ? KU_READABLE | KU_WRITABLE
                         : KU_READABLE;
    ku_monitor_leave(&call->pump->monitor);
    long got = KU_WIRE_WOULD_BLOCK;
    if (events & KU_READABLE) {
        int waits = call->blocks && !sends ? KU_WAITS : 0;
        got = ku_wire_receive(call->socket, memory, length, how | waits, &call->error);
    }
    if (got == KU_WIRE_WOULD_BLOCK && call->deadline != KU_AT_ONCE) {
        got = wait_outside(call, events);
        if (got > 0) {
            got = got & KU_READABLE
                      ? ku_wire_receive(call->socket, memory, length, how, &call->error)
                      : KU_WIRE_SIGNAL;
            got = got == KU_WIRE_WOULD_BLOCK ? KU_WIRE_SIGNAL : got;
        }
    }
    ku_monitor_enter(&call->pump->monitor);
    return got;
}

/* What a failed recv() means for the call.  In a handshake, the peer waits for us
   first. */
static enum ku_progress
receive_failure(const struct ku_call *call, long failure)
{
    int owes = ku_traffic_output_left(call) > 0
               && !call->tls.libssl->SSL_is_init_finished(call->tls.ssl);
    return wire_failure(call, failure, owes ? KU_WANT_WRITE : KU_WANT_READ);
}

/* Must the last byte of what comes next stay in the socket? */
static int
keeps_byte(const struct ku_call *call, enum ku_reach reach)
{
    return reach == KU_KEEPING
           && (ku_buffer_length(&call->pump->stash) > 0
               || ku_tlsbio_data_may_follow(call->bio));
}

/* One recv() into the memory that OpenSSL reads. */
static enum ku_progress
receive_into_bio(struct ku_call *call, enum ku_reach reach)
{
    struct ku_pump *pump = call->pump;
    int ahead =
        reach == KU_AHEAD && ku_tlsbio_data_follows(call->bio, ku_is_tls13(&call->tls));
    int keeps = keeps_byte(call, reach);
    size_t length = ku_tlsbio_wanted(call->bio, ahead);
    int peeks = keeps && length == 1 ? KU_PEEKS : 0;
    char *memory = ku_tlsbio_lend(call->bio, length);
    if (memory == NULL) {
        return KU_NO_MEMORY;
    }
    ku_traffic_take_kept_byte(call);
    long got = receive_outside(call, memory, length - (keeps && !peeks), peeks);
    ku_tlsbio_take_back(call->bio, got > 0 ? (size_t)got : 0);
    pump->kept_byte = peeks && got > 0;
    pump->kept_since = pump->kept_byte ? ku_now() : 0;
    if (got < 0) {
        return receive_failure(call, got);
    }
    if (ku_threads_are_closed(call)) {
        return KU_CLOSED_HERE;
    }
    call->bio->at_end = got == 0;
    pump->receptions++;
    ku_monitor_announce(&pump->monitor);
    return KU_DONE;
}

int
ku_traffic_begin_receiving(struct ku_call *call)
{
    struct ku_pump *pump = call->pump;
    struct ku_tlsbio *bio = call->bio;
    if (!ku_tlsbio_has_begun(bio) || bio->at_end || pump->kept_byte
        || pump->receive_error != 0 || ku_threads_are_closed(call)
        || ku_traffic_output_left(call) > MAX_OUTPUT
        || !call->tls.libssl->SSL_is_init_finished(call->tls.ssl)) {
        return 0;
    }
    bio->receives = 1;
    bio->receives_ahead = ku_tlsbio_data_follows(bio, ku_is_tls13(&call->tls));
    bio->socket = call->socket;
    return 1;
}

void
ku_traffic_end_receiving(struct ku_call *call)
{
    struct ku_tlsbio *bio = call->bio;
    bio->receives = 0;
    if (bio->receive_error != 0) {
        call->pump->receive_error = bio->receive_error;
        bio->receive_error = 0;
    }
    if (bio->received) {
        bio->received = 0;
        call->pump->receptions++;
        ku_monitor_announce(&call->pump->monitor);
    }
}

enum ku_progress
ku_traffic_receive(struct ku_call *call, enum ku_reach reach)
{
    struct ku_pump *pump = call->pump;
    ku_traffic_flush(call);
    if (ku_threads_are_closed(call)) {
        return KU_CLOSED_HERE;
    }
    if (pump->receive_error != 0) {
        call->error = pump->receive_error;
        pump->receive_error = 0;
        return KU_SYSTEM;
    }
    if (ku_traffic_output_left(call) > MAX_OUTPUT && !ku_traffic_can_send(call)) {
        return ku_threads_wait_for_news(call, KU_WANT_WRITE);
    }
    enum ku_progress progress =
        reach == KU_KEEPING ? let_kept_byte_be_seen(call) : KU_DONE;
    return progress == KU_DONE ? receive_into_bio(call, reach) : progress;
}
