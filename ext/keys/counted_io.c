#include "keys/counted_io.h"

#include "keys/key_use.h"
#include "keys/notes.h"
#include "keys/peer_limits.h"
#include "openssl/questions.h"

/* The next read begins a record unless it finds one begun. */
static int
begins_record(const struct ku_tls *tls)
{
    return tls->libssl->SSL_pending(tls->ssl) == 0;
}

/* Is it the end of the stream, and no error?  (Python 3.9 has OpenSSL take an end without
   a close_notify for one with it, SSL_OP_IGNORE_UNEXPECTED_EOF.  A close_notify resets
   `unheard`.) */
static int
is_mere_end(const struct ku_outcome *outcome)
{
    return outcome->value == SSL_ERROR_ZERO_RETURN
           || KU_ERROR_REASON(outcome->error) == SSL_R_UNEXPECTED_EOF_WHILE_READING
           || (outcome->value == SSL_ERROR_SYSCALL && outcome->error == 0
               && outcome->system_error == 0);
}

/* The outcome of a call that has failed.  Notes whether the connection has ended. */
static struct ku_outcome
failed_io(const struct ku_tls *tls)
{
    struct ku_outcome outcome = ku_failed_io(tls);
    if (tls->ledger != NULL && tls->ledger->unheard && tls->ledger->why_cut == NULL
        && (outcome.value == SSL_ERROR_SYSCALL || outcome.value == SSL_ERROR_ZERO_RETURN
            || ku_has_failed(tls))) {
        ku_ledger_note_end(tls->ledger, is_mere_end(&outcome));
    }
    return outcome;
}

struct ku_outcome
ku_counted_read(const struct ku_tls *tls, char *data, size_t room, size_t *done)
{
    int begins = begins_record(tls);
    *done = 0;
    ku_limit_renegotiation_time(tls);
    ku_clear_errors(tls->libssl);
    if (tls->libssl->SSL_read_ex(tls->ssl, data, room, done) != 1) {
        return failed_io(tls);
    }
    if (tls->ledger != NULL) {
        ku_count_received(tls->ledger, *done, begins);
    }
    return ku_ok(0);
}

struct ku_outcome
ku_counted_write(const struct ku_tls *tls, const char *data, size_t length,
                 size_t *done)
{
    *done = 0;
    ku_limit_renegotiation_time(tls);
    ku_clear_errors(tls->libssl);
    int result = tls->libssl->SSL_write_ex(tls->ssl, data, length, done);
    struct ku_outcome outcome = result == 1 ? ku_ok(0) : failed_io(tls);
    if (tls->ledger != NULL && *done > 0) {
        ku_count_sent(tls->ledger, *done);
    }
    return outcome;
}

struct ku_outcome
ku_counted_peek(const struct ku_tls *tls)
{
    int begins = begins_record(tls);
    char first;
    ku_limit_renegotiation_time(tls);
    ku_clear_errors(tls->libssl);
    if (tls->libssl->SSL_peek(tls->ssl, &first, 1) <= 0) {
        return failed_io(tls);
    }
    if (tls->ledger != NULL && begins) {
        ku_count_begun(tls->ledger); /* the read that follows finds it begun */
    }
    return ku_ok(0);
}

int
ku_is_end_of_data(const struct ku_tls *tls, const struct ku_outcome *outcome)
{
    return outcome->refusal == KU_IO && outcome->value == SSL_ERROR_ZERO_RETURN
           && (tls->ledger == NULL || tls->ledger->why_cut == NULL)
           && tls->libssl->SSL_get_shutdown(tls->ssl) == SSL_RECEIVED_SHUTDOWN;
}
