#include "keys/policy.h"

#include "calls/controls.h"

#define WHILE_DEFERRED 65536 /* bytes to be written before it is tried again */

/* --- what is due ----------------------------------------------------------------- */

static int
is_old(const struct ku_keys *keys, ku_time now)
{
    return keys->most_age != KU_NEVER && now - keys->since >= keys->most_age;
}

/* Does the peer use its keys for longer than ours would be used?  One request at a
   time (RFC 9846 section 4.7.3).  Its age counts after data of its own (`heard`): a
   peer that only reads answers never, and what its keys are does not matter. */
static int
peer_lags(const struct ku_record *record, ku_time now, int heard)
{
    const struct ku_keys *keys = &record->received;
    return !record->outstanding
           && (keys->records >= keys->most_records || keys->bytes >= keys->most_bytes
               || (heard && keys->records > 0 && is_old(keys, now)));
}

/* Without asking for the time where there is no rule about it. */
static ku_time
time_for(const struct ku_record *record)
{
    return record->rules.age != KU_NEVER || record->rules.idle != KU_NEVER
               ? ku_record_clock()
               : 0;
}

int
ku_policy_is_wanted(const struct ku_record *record)
{
    return ku_atomic_get(&record->wanted) != KU_NOT_WANTED;
}

static int
was_idle(const struct ku_record *record, ku_time now)
{
    ku_time idle = record->rules.idle;
    return idle != KU_NEVER && now - record->last_io >= idle;
}

static uint64_t
left(uint64_t most, uint64_t used)
{
    return most == KU_NO_LIMIT ? KU_NO_LIMIT : most > used ? most - used : 0;
}

/* How many of n bytes fit into so many records? */
static size_t
in_records(const struct ku_record *record, uint64_t records, size_t n)
{
    if (n <= record->fragment) {
        return records > 0 ? n : 0; /* without dividing, as it mostly is */
    }
    return records >= n / record->fragment + 1 ? n : (size_t)records * record->fragment;
}

static size_t
under_present_keys(const struct ku_record *record, size_t n)
{
    const struct ku_keys *keys = &record->sent;
    size_t room = in_records(record, left(keys->most_records, keys->records), n);
    uint64_t bytes = left(keys->most_bytes, keys->bytes);
    return bytes < room ? (size_t)bytes : room;
}

static size_t
under_unused_keys(const struct ku_record *record, size_t n)
{
    const struct ku_keys *keys = &record->sent;
    size_t room = in_records(record, keys->most_records, n);
    return keys->most_bytes < room ? (size_t)keys->most_bytes : room;
}

/* How many of n bytes the cipher suite can still take, a little at a time. */
static size_t
at_most(const struct ku_record *record, size_t n)
{
    return in_records(record, left(record->hard_records, record->sent.records),
                      n < WHILE_DEFERRED ? n : WHILE_DEFERRED);
}

/* --- and doing it ---------------------------------------------------------------- */

/* A request of ours may not take the place of the answer that we owe. */
static int
update_type(const struct ku_libssl *libssl, SSL *ssl, const struct ku_record *record,
            int heard)
{
    int asks = record->rules.request_peer
               || ku_atomic_get(&record->wanted) == KU_WANTED_OF_BOTH
               || peer_lags(record, time_for(record), heard);
    int owes = ku_pending_key_update(libssl, ssl) != SSL_KEY_UPDATE_NONE;
    return asks && !record->outstanding && !owes ? SSL_KEY_UPDATE_REQUESTED
                                                 : SSL_KEY_UPDATE_NOT_REQUESTED;
}

/* What was wanted is, but for the peer's new keys where it was not asked. */
static void
fulfil(struct ku_record *record, int type)
{
    if (type == SSL_KEY_UPDATE_REQUESTED || record->outstanding) {
        ku_record_fulfil(record, KU_WANTED_OF_BOTH);
    }
    ku_record_fulfil(record, KU_WANTED);
}

/* It is done, or cannot be. */
static void
give_up_wish(struct ku_record *record)
{
    ku_record_fulfil(record, KU_WANTED_OF_BOTH);
    ku_record_fulfil(record, KU_WANTED);
}

/* KU_OK: scheduled, by this call or before. */
static struct ku_outcome
update(const struct ku_libssl *libssl, SSL *ssl, struct ku_record *record, int heard)
{
    int type = update_type(libssl, ssl, record, heard);
    struct ku_outcome outcome = ku_schedule_key_update(libssl, ssl, type);
    if (outcome.refusal == KU_SCHEDULED) {
        type = SSL_KEY_UPDATE_NOT_REQUESTED; /* maybe: ask again later */
        outcome = ku_ok(0);
    }
    if (outcome.refusal == KU_OK) {
        fulfil(record, type);
    }
    return outcome;
}

static struct ku_outcome
renegotiate(const struct ku_libssl *libssl, SSL *ssl, struct ku_record *record)
{
    if (!record->rules.renegotiate) {
        return ku_refused_because(KU_NOT_ALLOWED, libssl->SSL_get_version(ssl));
    }
    struct ku_outcome outcome = ku_schedule_renegotiation(libssl, ssl, 0);
    if (outcome.refusal == KU_OK) {
        give_up_wish(record);
    }
    return outcome;
}

static int
is_too_soon(const struct ku_record *record)
{
    return record->rules.min_interval > 0
           && ku_record_clock() - record->last_update < record->rules.min_interval;
}

/* OpenSSL ends its own connection (BAD_LENGTH) over any KeyUpdate that it reads
   behind one that requests an answer, while a non-blocking write of its is half-way:
   the answer waits for that write.  So behind a request of ours goes no update,
   before the peer has answered, but where the cipher suite demands it, or somebody
   has wished for it (rekey_all()). */
static struct ku_outcome
renew(const struct ku_libssl *libssl, SSL *ssl, struct ku_record *record, int must,
      int heard)
{
    if (!must && is_too_soon(record)) {
        return ku_refused(KU_TOO_SOON);
    }
    if (!must && record->outstanding && !ku_policy_is_wanted(record)) {
        return ku_refused(KU_UNANSWERED);
    }
    return libssl->SSL_version(ssl) == TLS1_3_VERSION
               ? update(libssl, ssl, record, heard)
               : renegotiate(libssl, ssl, record);
}

/* The connection is at its beginning or at its end: nothing is to be changed. */
static int
is_out_of_scope(const struct ku_libssl *libssl, SSL *ssl,
                const struct ku_record *record)
{
    return !record->connected || record->excused || record->why_cut != NULL
           || (libssl->SSL_get_shutdown(ssl) & SSL_SENT_SHUTDOWN) != 0
           || ku_has_failed(libssl, ssl);
}

/* An SSLObject below TLS 1.3: a write of it is all or nothing, as it may have to wait
   for a renegotiation. */
static int
is_whole(const struct ku_libssl *libssl, SSL *ssl, const struct ku_record *record)
{
    return !record->is_shared && libssl->SSL_version(ssl) != TLS1_3_VERSION;
}

/* A client's renegotiation that begins with a write dies of data that is on its way.
   A managed socket reads meanwhile; an SSLObject begins with its next read. */
static struct ku_outcome
renew_before_write(const struct ku_libssl *libssl, SSL *ssl, struct ku_record *record,
                   int must)
{
    if (!record->rules.renegotiate || !is_whole(libssl, ssl, record)
        || libssl->SSL_is_server(ssl)) {
        return renew(libssl, ssl, record, must, 0);
    }
    struct ku_outcome may = ku_may_renegotiate(libssl, ssl);
    if (may.refusal == KU_OK) {
        ku_record_want(record, KU_WANTED);
        may = ku_refused(KU_READ_PENDING);
    }
    return may;
}

static int
is_reached(const struct ku_libssl *libssl, SSL *ssl, const struct ku_record *record,
           ku_time now, size_t n, size_t room)
{
    return is_old(&record->sent, now) || peer_lags(record, now, 0)
           || was_idle(record, now)
           || (room < n && (room == 0 || is_whole(libssl, ssl, record)));
}

/* What another thread has asked for, and cannot be had, is no reason to refuse data. */
struct ku_outcome
ku_policy_before_write(const struct ku_libssl *libssl, SSL *ssl,
                       struct ku_record *record, size_t n, size_t *room)
{
    ku_time now = time_for(record);
    *room = under_present_keys(record, n);
    int reached = is_reached(libssl, ssl, record, now, n, *room);
    if (!reached && !ku_policy_is_wanted(record)) {
        record->last_io = now;
        return ku_ok(0);
    }
    if (is_out_of_scope(libssl, ssl, record)) {
        *room = n;
        return ku_ok(0);
    }
    int must = n > 0 && at_most(record, n) == 0;
    struct ku_outcome outcome = renew_before_write(libssl, ssl, record, must);
    int whole = is_whole(libssl, ssl, record);
    if (outcome.refusal == KU_OK) {
        *room = whole ? n : under_unused_keys(record, n);
    }
    else if (ku_is_for_good(&outcome) && !reached) {
        give_up_wish(record);
    }
    else if (ku_is_for_good(&outcome) || must) {
        return outcome;
    }
    else {
        ku_record_defer(record);
        *room = whole ? n : at_most(record, n);
    }
    return ku_ok(0);
}

void
ku_policy_excuse(struct ku_record *record)
{
    record->excused = 1;
}

int
ku_policy_at_rest(const struct ku_libssl *libssl, SSL *ssl, struct ku_record *record)
{
    ku_time now = time_for(record);
    int reached = is_old(&record->sent, now) || peer_lags(record, now, 1);
    if (!reached && !ku_policy_is_wanted(record)) {
        record->last_io = now;
        return 0;
    }
    if (is_out_of_scope(libssl, ssl, record)) {
        return 0;
    }
    struct ku_outcome outcome = renew(libssl, ssl, record, 0, 1);
    if (outcome.refusal == KU_OK) {
        return libssl->SSL_version(ssl) == TLS1_3_VERSION || libssl->SSL_is_server(ssl);
    }
    if (ku_is_for_good(&outcome)) {
        give_up_wish(record); /* a write will say it */
    }
    else {
        ku_record_defer(record);
    }
    return 0;
}
