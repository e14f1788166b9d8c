#include "streams/pump.h"

#include "keys/counted_io.h"
#include "keys/policy.h"
#include "keys/scheduling.h"
#include "openssl/questions.h"
#include "streams/traffic.h"
#include "system/forks.h"
#include "system/hash.h"

#include <stdlib.h>
#include <string.h>

#define RECORD_OVERHEAD 128 /* most bytes besides the data, with any cipher of TLS */
#define STEP_BYTES (4 * TLS_MAX_PLAINTEXT) /* bytes encrypted in one step */
#define MAX_STASH (1024 * 1024) /* bytes of a peer that writes and does not answer */
#define FINGERPRINT_BYTES 4096
#define CLOSE_PATIENCE 1000 /* microseconds: what leaving takes, and some more */

/* --- create, destroy, fork -------------------------------------------------------- */

int
ku_pump_create(struct ku_pump *pump)
{
    memset(pump, 0, sizeof(*pump));
    pump->left_open = KU_NO_SOCKET;
    return ku_monitor_create(&pump->monitor);
}

void
ku_pump_destroy(struct ku_pump *pump)
{
    free(pump->stash.memory);
    free(pump->unsent.memory);
    ku_monitor_destroy(&pump->monitor);
}

static void
take_role_from_others(unsigned long *role)
{
    *role = *role == ku_forker ? *role : 0;
}

/* Only the thread that forked exists here: it may be in a step, whose callback forked,
   and it may have roles.  What another thread had half done in OpenSSL cannot be
   repaired. */
void
ku_pump_forked(struct ku_pump *pump)
{
    unsigned long inside = pump->monitor.owner;
    if (pump->sending != 0 && pump->sending != ku_forker) {
        /* in the parent, that thread goes on sending it */
        ku_buffer_drop(&pump->unsent, ku_buffer_length(&pump->unsent));
        pump->sent_apart = 0;
    }
    take_role_from_others(&pump->receiving);
    take_role_from_others(&pump->sending);
    take_role_from_others(&pump->writing);
    pump->users = inside != 0 && inside == ku_forker;
    if (ku_monitor_forked(&pump->monitor, ku_forker) < 0
        || (inside != 0 && inside != ku_forker)) {
        pump->broken_by_fork = 1;
    }
}

/* --- steps of OpenSSL ------------------------------------------------------------- */

/* Keep a fatal error: OpenSSL reports it only once, and all threads in the connection
   must learn of it. */
static void
note_failure(struct ku_call *call)
{
    struct ku_pump *pump = call->pump;
    if (pump->ended.refusal == KU_OK && ku_has_failed(&call->tls)) {
        pump->ended = call->outcome;
        if (KU_ERROR_REASON(pump->ended.error) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
            pump->ended.error = 0; /* OpenSSL, too, gives the reason only once */
        }
        ku_monitor_announce(&pump->monitor);
    }
}

/* What the outcome of a step means for the call. */
static enum ku_progress
step_progress(struct ku_call *call, const struct ku_outcome *outcome)
{
    if (outcome->refusal == KU_OK) {
        return KU_DONE;
    }
    if (outcome->value == SSL_ERROR_WANT_READ) {
        return KU_WANT_READ;
    }
    if (outcome->value == SSL_ERROR_WANT_WRITE) {
        return KU_NO_MEMORY; /* memory takes everything, unless there is none */
    }
    call->outcome = *outcome;
    note_failure(call);
    return KU_ENDED;
}

/* To OpenSSL, a peer that was cut off is merely silent (peer_limits.c).  Returns
   KU_DONE, or KU_ENDED if the connection has ended. */
static enum ku_progress
check_not_ended(struct ku_call *call)
{
    struct ku_pump *pump = call->pump;
    if (pump->ledger != NULL && pump->ledger->why_cut != NULL
        && pump->ended.refusal == KU_OK) {
        pump->ended = ku_refused_because(KU_PEER_LIMIT, pump->ledger->why_cut);
        ku_monitor_announce(&pump->monitor);
    }
    if (pump->ended.refusal == KU_OK) {
        return KU_DONE;
    }
    call->outcome = pump->ended;
    return KU_ENDED;
}

/* What a step came to, unless the peer was cut off during it. */
static enum ku_progress
progress_unless_cut(struct ku_call *call, enum ku_progress progress)
{
    const struct ku_ledger *ledger = call->pump->ledger;
    return ledger != NULL && ledger->why_cut != NULL ? check_not_ended(call) : progress;
}

/* One SSL_read_ex(). */
static enum ku_progress
pump_decrypt(struct ku_call *call, char *data, size_t room, size_t *got)
{
    *got = 0;
    enum ku_progress progress = check_not_ended(call);
    if (progress != KU_DONE) {
        return progress;
    }
    struct ku_outcome outcome = ku_counted_read(&call->tls, data, room, got);
    return outcome.refusal == KU_OK
               ? KU_DONE
               : progress_unless_cut(call, step_progress(call, &outcome));
}

enum ku_progress
ku_pump_settle(struct ku_call *call)
{
    struct ku_buffer *stash = &call->pump->stash;
    enum ku_progress progress = KU_DONE;
    while (progress == KU_DONE) {
        size_t got;
        char *room = ku_buffer_reserve(stash, TLS_MAX_PLAINTEXT);
        if (room == NULL) {
            return KU_NO_MEMORY;
        }
        progress = pump_decrypt(call, room, TLS_MAX_PLAINTEXT, &got);
        stash->end += got;
        ku_buffer_drop(stash, 0);
    }
    if (ku_buffer_length(stash) == 0) {
        ku_traffic_take_kept_byte(call);
    }
    return progress == KU_WANT_READ ? KU_DONE : progress;
}

/* Was the step refused because received data is unread?  The data is inside OpenSSL,
   left there between two calls of a reader. */
static int
waits_for_reader(const struct ku_outcome *outcome)
{
    return outcome->refusal == KU_READ_PENDING || outcome->refusal == KU_UNREAD
           || outcome->refusal == KU_READ_PENDING_OLD;
}

enum ku_progress
ku_pump_take_step(struct ku_call *call, ku_step step, intptr_t argument)
{
    ku_clear_errors(call->tls.libssl);
    call->tls.argument = argument;
    call->outcome = step(&call->tls);
    if (waits_for_reader(&call->outcome)) {
        struct ku_outcome refused = call->outcome;
        enum ku_progress progress = ku_pump_settle(call);
        if (progress == KU_NO_MEMORY) {
            return progress;
        }
        call->outcome = progress == KU_DONE ? step(&call->tls) : refused;
    }
    if (call->outcome.refusal == KU_OK) {
        return KU_DONE;
    }
    if (call->outcome.refusal == KU_IO && call->outcome.value == SSL_ERROR_WANT_WRITE) {
        return KU_NO_MEMORY;
    }
    note_failure(call);
    return KU_REFUSED;
}

int
ku_pump_is_renegotiating(const struct ku_call *call)
{
    const struct ku_libssl *libssl = call->tls.libssl;
    SSL *ssl = call->tls.ssl;
    if (libssl->SSL_version(ssl) == TLS1_3_VERSION) {
        return 0;
    }
    if (libssl->SSL_is_init_finished(ssl)) {
        return !libssl->SSL_is_server(ssl) && ku_renegotiates(&call->tls);
    }
    return ku_connection_state(&call->tls) == KU_OK;
}

enum ku_progress
ku_pump_receive(struct ku_call *call, unsigned long received, int keeps)
{
    struct ku_pump *pump = call->pump;
    if (pump->receptions != received) {
        return KU_DONE;
    }
    if (ku_buffer_length(&pump->stash) > MAX_STASH) {
        return KU_STASH_FULL;
    }
    if (pump->receiving && !call->receives) {
        return ku_threads_wait_for_news(call, KU_WANT_READ);
    }
    ku_threads_take_free_role(&pump->receiving, &call->receives);
    enum ku_progress progress =
        ku_traffic_receive(call, keeps ? KU_KEEPING : KU_EXACTLY);
    ku_threads_give_up_role(pump, &pump->receiving, &call->receives);
    return progress;
}

/* A copy of a call, which may not wait. */
static struct ku_call
nonblocking_copy(const struct ku_call *call)
{
    struct ku_call copy = *call;
    copy.blocks = 0;
    copy.deadline = KU_AT_ONCE;
    return copy;
}

/* A peer that is gone may first have sent an alert that says why.  To a writer that is
   a better answer than "connection reset". */
static enum ku_progress
prefer_alert(struct ku_call *call, enum ku_progress progress)
{
    struct ku_pump *pump = call->pump;
    if (progress != KU_SYSTEM || pump->receiving || !ku_wire_is_gone(call->error)) {
        return progress;
    }
    struct ku_call at_once = nonblocking_copy(call);
    enum ku_progress reached = KU_DONE;
    ku_threads_take_free_role(&pump->receiving, &at_once.receives);
    while (reached == KU_DONE && ku_buffer_length(&pump->stash) <= MAX_STASH) {
        pump->kept_since = ku_now(); /* it is taken only if more follows it */
        reached = ku_traffic_receive(&at_once, KU_KEEPING);
        if (reached == KU_DONE) {
            reached = ku_pump_settle(&at_once);
        }
    }
    ku_threads_give_up_role(pump, &pump->receiving, &at_once.receives);
    if (reached != KU_ENDED || at_once.outcome.value != SSL_ERROR_SSL
        || at_once.outcome.error == 0
        || KU_ERROR_REASON(at_once.outcome.error)
               == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
        return progress;
    }
    call->outcome = at_once.outcome;
    return KU_ENDED;
}

static enum ku_progress
handshake_step(struct ku_call *call)
{
    enum ku_progress progress = check_not_ended(call);
    if (progress == KU_DONE) {
        struct ku_outcome outcome = ku_do_handshake(&call->tls);
        if (outcome.refusal != KU_OK) {
            progress = progress_unless_cut(call, step_progress(call, &outcome));
        }
    }
    return progress;
}

/* A failure shows in the next call. */
static void
renew_if_due(struct ku_call *call)
{
    struct ku_ledger *ledger = call->pump->ledger;
    if (ledger != NULL && ku_policy_renew_if_due(&call->tls)) {
        (void)handshake_step(call);
    }
}

enum ku_progress
ku_pump_renew(struct ku_call *call)
{
    renew_if_due(call);
    ku_traffic_flush(call);
    return KU_DONE;
}

enum ku_progress
ku_pump_rotate(struct ku_call *call, ku_time *wait)
{
    *wait = KU_NEVER;
    ku_traffic_flush(call);
    if (call->pump->ledger == NULL || ku_threads_are_closed(call)
        || check_not_ended(call) != KU_DONE) {
        return KU_DONE; /* the owner's next call says so */
    }
    int stuck = ku_traffic_output_left(call) > 0;
    call->outcome = ku_policy_rotate(&call->tls, stuck, wait);
    if (call->outcome.refusal != KU_OK) {
        return KU_NO_NEW_KEYS;
    }
    if (call->outcome.value) {
        (void)handshake_step(call); /* a failure shows in the next call */
        ku_traffic_flush(call);
    }
    return KU_DONE;
}

enum ku_progress
ku_pump_give_up(struct ku_call *call)
{
    struct ku_pump *pump = call->pump;
    if (pump->ended.refusal == KU_OK) {
        pump->ended = ku_refused(KU_KEY_TOO_OLD);
    }
    ku_wire_wake(call->socket);
    ku_monitor_announce(&pump->monitor);
    return KU_DONE;
}

/* --- reading and writing ---------------------------------------------------------- */

/* Would SSL_read_ex() do nothing but report that it wants to read?  Asking is cheaper:
   that is all it would do if no record is here and nothing is scheduled that it would
   perform. */
static int
nothing_to_read(const struct ku_call *call)
{
    const struct ku_libssl *libssl = call->tls.libssl;
    SSL *ssl = call->tls.ssl;
    return call->bio->whole_bytes == 0 && !call->bio->at_end && !call->bio->receives
           && libssl->SSL_is_init_finished(ssl) && libssl->SSL_pending(ssl) == 0
           && libssl->SSL_get_shutdown(ssl) == 0 && !ku_renegotiates(&call->tls);
}

/* Read the stash, and then the whole records that are here. */
static enum ku_progress
read_records(struct ku_call *call, char *data, size_t room, size_t *got)
{
    enum ku_progress progress = KU_DONE;
    size_t more = ku_buffer_take(&call->pump->stash, data + *got, room - *got);
    if (more > 0) {
        ku_monitor_announce(&call->pump->monitor); /* somebody saw KU_STASH_FULL */
    }
    *got += more;
    if (nothing_to_read(call)) {
        return *got > 0 ? KU_DONE : KU_WANT_READ;
    }
    while (*got < room && progress == KU_DONE) {
        progress = pump_decrypt(call, data + *got, room - *got, &more);
        *got += more;
        if (call->bio->whole_bytes == 0
            && call->tls.libssl->SSL_pending(call->tls.ssl) == 0) {
            break;
        }
    }
    ku_traffic_end_receiving(call);
    return progress;
}

static enum ku_progress
read_available(struct ku_call *call, char *data, size_t room, size_t *got)
{
    enum ku_progress progress = read_records(call, data, room, got);
    if (call->pump->kept_byte && ku_buffer_length(&call->pump->stash) == 0
        && call->bio->whole_bytes == 0
        && call->tls.libssl->SSL_pending(call->tls.ssl) == 0) {
        ku_traffic_take_kept_byte(call);
    }
    return progress;
}

/* May OpenSSL receive the next record?  If there is room for one more, and it certainly
   has data (see ku_tlsbio_wanted()). */
static int
may_read_next_record(struct ku_call *call, size_t room)
{
    return room >= TLS_MAX_PLAINTEXT && call->receives
           && ku_tlsbio_data_follows(call->bio, ku_is_tls13(&call->tls))
           && ku_traffic_begin_receiving(call);
}

/* Read the records that are here, and records of data that come right behind them. */
static enum ku_progress
read_without_waiting(struct ku_call *call, char *data, size_t room, size_t *got)
{
    enum ku_progress progress;
    do {
        progress = read_available(call, data, room, got);
    } while (*got > 0 && progress != KU_ENDED
             && may_read_next_record(call, room - *got));
    return progress;
}

/* Send what OpenSSL has written while reading, unless the last try could send no more
   of it.  Returns 1 to look again: another thread may have received something
   meanwhile. */
static int
flush_while_reading(struct ku_call *call, size_t *left)
{
    if (!ku_traffic_can_send(call) || ku_traffic_output_left(call) == *left) {
        return 0;
    }
    ku_traffic_flush(call);
    *left = ku_traffic_output_left(call);
    return 1;
}

/* The call keeps the role of the receiver from one record to the next. */
static enum ku_progress
receive_or_wait(struct ku_call *call)
{
    struct ku_pump *pump = call->pump;
    /* Other threads may be waiting for what these steps have done. */
    ku_monitor_announce(&pump->monitor);
    if (pump->receiving && !call->receives) {
        return ku_threads_wait_for_news(call, KU_WANT_READ);
    }
    ku_threads_take_free_role(&pump->receiving, &call->receives);
    if (ku_traffic_begin_receiving(call)) {
        return KU_DONE;
    }
    enum ku_progress progress = ku_traffic_receive(call, KU_AHEAD);
    if (progress == KU_DONE) {
        progress = ku_threads_let_signals(call);
    }
    if (progress == KU_DONE) {
        (void)ku_traffic_begin_receiving(call);
    }
    return progress;
}

enum ku_progress
ku_pump_read(struct ku_call *call, char *data, size_t room, size_t *got)
{
    enum ku_progress progress = KU_DONE;
    size_t left = 0;
    if (call->pump->ledger != NULL && ku_policy_keys_are_wanted(call->pump->ledger)) {
        renew_if_due(call);
    }
    while (progress == KU_DONE) {
        progress = read_without_waiting(call, data, room, got);
        if (*got > 0) {
            return ku_pump_renew(call);
        }
        if (flush_while_reading(call, &left)) {
            progress = progress == KU_WANT_READ ? KU_DONE : progress;
        }
        else if (progress == KU_WANT_READ) {
            progress = receive_or_wait(call);
        }
    }
    return progress;
}

/* Which data was accepted?  A program that deceives this check harms only itself. */
static uint32_t
fingerprint_of(const char *data, size_t accepted)
{
    size_t start = accepted > FINGERPRINT_BYTES ? accepted - FINGERPRINT_BYTES : 0;
    return ku_hash(data + start, accepted - start);
}

/* When a write is repeated, OpenSSL accepts any data of the same length
   (SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER); if it is other data, the stream is broken. */
static enum ku_progress
check_repeated(struct ku_call *call, const char *data, size_t n)
{
    struct ku_pump *pump = call->pump;
    if (pump->accepted == 0
        || (pump->accepted <= n
            && pump->fingerprint == fingerprint_of(data, pump->accepted))) {
        return KU_DONE;
    }
    call->outcome = (struct ku_outcome){.refusal = KU_IO, .value = SSL_ERROR_SSL};
    call->outcome.detail = ": a send before this one ended half-way (a timeout, "
                           "SSLWantWriteError, a signal, a RekeyPolicy); repeat it "
                           "with the same data, or close the connection";
    call->outcome.error = ku_ssl_error(call->tls.libssl, SSL_R_BAD_WRITE_RETRY);
    return KU_ENDED;
}

/* Wait until no renegotiation is in the way of a write, and read if no other thread
   does. */
static enum ku_progress
wait_out_renegotiation(struct ku_call *call)
{
    enum ku_progress progress = KU_DONE;
    while (progress == KU_DONE && ku_pump_is_renegotiating(call)) {
        progress = ku_pump_settle(call);
        if (progress == KU_DONE && ku_pump_is_renegotiating(call)) {
            progress = ku_pump_receive(call, call->pump->receptions, 1);
            if (progress == KU_STASH_FULL) {
                progress = ku_threads_wait_for_news(call, KU_WANT_READ);
            }
        }
        if (progress == KU_DONE) {
            progress = ku_threads_let_signals(call);
        }
    }
    return progress;
}

/* Where several records are written, one send() for all of them is faster than saving
   the copy. */
static int
reserve_output(struct ku_call *call, size_t length)
{
    size_t records = length / TLS_MAX_PLAINTEXT + 1;
    if (length <= TLS_MAX_PLAINTEXT) {
        ku_traffic_begin_direct(call);
    }
    return call->bio->sends
                   || ku_buffer_reserve(&call->bio->output,
                                        length + records * RECORD_OVERHEAD)
                          != NULL
               ? 0
               : -1;
}

/* One SSL_write_ex(). */
static enum ku_progress
encrypt_chunk(struct ku_call *call, const char *data, size_t length)
{
    size_t written = 0;
    if (reserve_output(call, length) < 0) {
        return KU_NO_MEMORY;
    }
    size_t flushed = call->bio->flushed;
    struct ku_outcome outcome = ku_counted_write(&call->tls, data, length, &written);
    ku_traffic_end_direct(call);
    call->bio->flushed = flushed; /* a KeyUpdate goes with the data behind it */
    call->pump->accepted += written;
    return step_progress(call, &outcome);
}

/* Reduce `n` to what may be written under the present keys, or under new ones that are
   now scheduled: a key update goes out ahead of the data, a renegotiation is waited
   for. */
static enum ku_progress
pump_admit(struct ku_call *call, size_t *n)
{
    struct ku_ledger *ledger = call->pump->ledger;
    *n = *n < STEP_BYTES ? *n : STEP_BYTES;
    if (ledger == NULL) {
        return KU_DONE;
    }
    call->outcome = ku_policy_admit_write(&call->tls, *n, n);
    return call->outcome.refusal == KU_OK ? KU_DONE : KU_NO_NEW_KEYS;
}

/* A write wants to read while it completes the first handshake. */
static enum ku_progress
pump_encrypt(struct ku_call *call, const char *data, size_t n)
{
    for (;;) {
        size_t length = n;
        enum ku_progress progress = pump_admit(call, &length);
        if (progress == KU_DONE) {
            progress = wait_out_renegotiation(call);
        }
        if (progress == KU_DONE) {
            progress = check_not_ended(call);
        }
        if (progress != KU_DONE) {
            return progress;
        }
        unsigned long received = call->pump->receptions;
        progress = encrypt_chunk(call, data, length);
        if (progress != KU_WANT_READ) {
            return progress;
        }
        ku_traffic_flush(call);
        progress = ku_pump_receive(call, received, 0);
        if (progress != KU_DONE) {
            return progress;
        }
    }
}

enum ku_progress
ku_pump_write(struct ku_call *call, const char *data, size_t n)
{
    struct ku_pump *pump = call->pump;
    if (pump->send_error != 0) {
        return prefer_alert(call, ku_traffic_send(call)); /* repeating does not help */
    }
    if (!call->writes && pump->writing == PyThread_get_thread_ident()) {
        call->outcome = ku_refused(KU_IN_WRITE); /* a signal handler or on_impossible */
        return KU_REFUSED;
    }
    enum ku_progress progress =
        ku_threads_take_role(call, &pump->writing, &call->writes, KU_WANT_WRITE);
    if (progress == KU_DONE) {
        progress = check_repeated(call, data, n);
        if (progress != KU_DONE) {
            return progress;
        }
    }
    int encrypted = 0;
    while (progress == KU_DONE
           && (progress = ku_threads_let_signals(call)) == KU_DONE) {
        progress = ku_traffic_send(call);
        if (progress != KU_DONE || (pump->accepted == n && (n > 0 || encrypted))) {
            break;
        }
        progress = pump_encrypt(call, data + pump->accepted, n - pump->accepted);
        encrypted = 1;
    }
    if (progress == KU_DONE) {
        pump->accepted = 0;
    }
    else if (pump->accepted > 0) {
        pump->fingerprint = fingerprint_of(data, pump->accepted);
    }
    ku_traffic_flush(call); /* there may be an alert, if a handshake has failed */
    return prefer_alert(call, progress);
}

/* --- handshakes and shutdowns ----------------------------------------------------- */

/* One stage of an exchange that may take several.  KU_WANT_READ: it takes another
   stage, once something has been received. */
typedef enum ku_progress (*ku_stage)(struct ku_call *call);

static enum ku_progress
exchange_messages(struct ku_call *call, ku_stage stage)
{
    for (;;) {
        unsigned long received = call->pump->receptions;
        enum ku_progress reached = stage(call);
        if (reached != KU_DONE && reached != KU_WANT_READ) {
            ku_traffic_flush(call); /* there may be an alert */
            return reached;
        }
        enum ku_progress progress = ku_traffic_send(call);
        if (progress == KU_DONE && reached == KU_WANT_READ) {
            progress = ku_pump_receive(call, received, ku_pump_is_renegotiating(call));
        }
        if (progress == KU_DONE && reached != KU_DONE) {
            progress = ku_threads_let_signals(call);
        }
        if (progress != KU_DONE || reached == KU_DONE) {
            return progress;
        }
    }
}

/* Only reading carries a renegotiation past data that is on its way. */
static enum ku_progress
handshake_stage(struct ku_call *call)
{
    if (!ku_pump_is_renegotiating(call)) {
        return handshake_step(call);
    }
    enum ku_progress progress = ku_pump_settle(call);
    return progress == KU_DONE && ku_pump_is_renegotiating(call) ? KU_WANT_READ
                                                                 : progress;
}

/* First send what is scheduled: otherwise SSL_shutdown() would refuse.  If
   SSL_shutdown() returns 0, our close_notify has been sent, and calling it again looks
   for the peer's. */
static enum ku_progress
shutdown_stage(struct ku_call *call)
{
    const struct ku_libssl *libssl = call->tls.libssl;
    struct ku_ledger *ledger = call->pump->ledger;
    if (ledger != NULL && ledger->why_cut != NULL) {
        return check_not_ended(call); /* what else is here is not plaintext */
    }
    if (ku_connection_state(&call->tls) == KU_OK && !ku_pump_is_renegotiating(call)
        && !libssl->SSL_is_init_finished(call->tls.ssl)) {
        enum ku_progress progress = handshake_step(call);
        if (progress != KU_DONE) {
            return progress;
        }
    }
    ku_clear_errors(libssl);
    int done = libssl->SSL_shutdown(call->tls.ssl);
    if (done == 0) {
        done = libssl->SSL_shutdown(call->tls.ssl);
    }
    struct ku_outcome outcome = done >= 0 ? ku_ok(0) : ku_failed_io(&call->tls);
    enum ku_progress progress = step_progress(call, &outcome);
    return progress_unless_cut(call,
                               progress); /* a cut-off looks like a close_notify */
}

/* OpenSSL's statem_srvr.c says "We ignore connection closed errors in TLSv1.3 when
   sending a NewSessionTicket": the client may have sent data, and closed without
   waiting for our tickets. */
static enum ku_progress
ignore_ticket_failure(const struct ku_call *call, enum ku_progress progress)
{
    int is_complete = call->tls.libssl->SSL_is_server(call->tls.ssl)
                      && ku_is_tls13(&call->tls)
                      && call->tls.libssl->SSL_is_init_finished(call->tls.ssl);
    return progress == KU_SYSTEM && is_complete && ku_wire_is_gone(call->error)
               ? KU_DONE
               : progress;
}

enum ku_progress
ku_pump_handshake(struct ku_call *call)
{
    enum ku_progress progress = exchange_messages(call, handshake_stage);
    return prefer_alert(call, ignore_ticket_failure(call, progress));
}

/* The plaintext that follows must not begin with a byte of TLS. */
enum ku_progress
ku_pump_shutdown(struct ku_call *call)
{
    enum ku_progress progress = exchange_messages(call, shutdown_stage);
    if (progress == KU_DONE) {
        ku_traffic_take_kept_byte(call);
    }
    return progress;
}

/* --- pending and close ------------------------------------------------------------ */

size_t
ku_pump_pending(struct ku_call *call)
{
    size_t pending = ku_buffer_length(&call->pump->stash)
                     + (size_t)call->tls.libssl->SSL_pending(call->tls.ssl);
    if (pending == 0 && call->bio->whole_bytes > 0) {
        (void)ku_pump_settle(call);
        pending = ku_buffer_length(&call->pump->stash);
    }
    return pending;
}

void
ku_pump_close(struct ku_call *call)
{
    struct ku_pump *pump = call->pump;
    pump->left_open = call->socket; /* only one thread can have detached it */
    ku_atomic_set(&pump->closed, 1);
    if (pump->users > 1) {
        ku_wire_wake(call->socket);
        ku_monitor_announce(&pump->monitor);
    }
}

void
ku_pump_close_from_outside(struct ku_call *call)
{
    struct ku_pump *pump = call->pump;
    pump->left_open = call->socket;
    ku_atomic_set(&pump->closed, 1);
    ku_wire_wake(call->socket);
    /* Whoever is inside may have looked for this just before, and be the last to go. */
    if (ku_monitor_enter_within(&pump->monitor, CLOSE_PATIENCE)) {
        ku_threads_leave(pump, 0);
    }
}
