#include "keys/policy.h"

#include "keys/scheduling.h"
#include "openssl/errors.h"
#include "openssl/questions.h"

#define BYTES_WHILE_DEFERRED 65536 /* bytes to be written before it is tried again */

/* --- what is due ----------------------------------------------------------------- */

static int
keys_are_old(const struct ku_keys *keys, ku_time now)
{
    return keys->max_age != KU_NEVER && now - keys->since >= keys->max_age;
}

/* Does the peer use its keys for longer than ours would be used?  One request at a
   time (RFC 9846 section 4.7.3).  Its age counts after data of its own (`heard`): a
   peer that only reads answers never, and what its keys are does not matter. */
static int
peer_keys_are_due(const struct ku_ledger *ledger, ku_time now, int heard)
{
    const struct ku_keys *keys = &ledger->received;
    return !ledger->request_outstanding
           && (keys->records >= keys->max_records || keys->bytes >= keys->max_bytes
               || (heard && keys->records > 0 && keys_are_old(keys, now)));
}

/* Without asking for the time where there is no rule about it. */
static ku_time
time_if_needed(const struct ku_ledger *ledger)
{
    return ledger->rules.age != KU_NEVER || ledger->rules.idle != KU_NEVER
               ? ku_ledger_clock()
               : 0;
}

int
ku_policy_keys_are_wanted(const struct ku_ledger *ledger)
{
    return ku_atomic_get(&ledger->wanted_keys) != KU_NOT_WANTED;
}

static int
connection_was_idle(const struct ku_ledger *ledger, ku_time now)
{
    ku_time idle = ledger->rules.idle;
    return idle != KU_NEVER && now - ledger->last_io >= idle;
}

static uint64_t
uses_left(uint64_t most, uint64_t used)
{
    return most == KU_NO_LIMIT ? KU_NO_LIMIT : most > used ? most - used : 0;
}

/* How many of n bytes fit into so many records? */
static size_t
bytes_in_records(const struct ku_ledger *ledger, uint64_t records, size_t n)
{
    if (n <= ledger->max_fragment) {
        return records > 0 ? n : 0; /* without dividing, as it mostly is */
    }
    return records >= n / ledger->max_fragment + 1
               ? n
               : (size_t)records * ledger->max_fragment;
}

static size_t
room_under_present_keys(const struct ku_ledger *ledger, size_t n)
{
    const struct ku_keys *keys = &ledger->sent;
    size_t room =
        bytes_in_records(ledger, uses_left(keys->max_records, keys->records), n);
    uint64_t bytes = uses_left(keys->max_bytes, keys->bytes);
    return bytes < room ? (size_t)bytes : room;
}

static size_t
room_under_fresh_keys(const struct ku_ledger *ledger, size_t n)
{
    const struct ku_keys *keys = &ledger->sent;
    size_t room = bytes_in_records(ledger, keys->max_records, n);
    return keys->max_bytes < room ? (size_t)keys->max_bytes : room;
}

/* How many of n bytes the cipher suite can still take, a little at a time. */
static size_t
room_under_cipher_limit(const struct ku_ledger *ledger, size_t n)
{
    return bytes_in_records(ledger,
                            uses_left(ledger->cipher_records, ledger->sent.records),
                            n < BYTES_WHILE_DEFERRED ? n : BYTES_WHILE_DEFERRED);
}

/* --- and doing it ---------------------------------------------------------------- */

/* A request of ours may not take the place of the answer that we owe. */
static int
choose_update_type(const struct ku_tls *tls, int heard)
{
    struct ku_ledger *ledger = tls->ledger;
    int asks = ledger->rules.request_peer
               || ku_atomic_get(&ledger->wanted_keys) == KU_WANTED_OF_BOTH
               || peer_keys_are_due(ledger, time_if_needed(ledger), heard);
    int owes = ku_pending_key_update(tls) != SSL_KEY_UPDATE_NONE;
    return asks && !ledger->request_outstanding && !owes ? SSL_KEY_UPDATE_REQUESTED
                                                         : SSL_KEY_UPDATE_NOT_REQUESTED;
}

/* What was wanted is, but for the peer's new keys where it was not asked. */
static void
fulfil_wish(struct ku_ledger *ledger, int type)
{
    if (type == SSL_KEY_UPDATE_REQUESTED || ledger->request_outstanding) {
        ku_ledger_fulfil_wish(ledger, KU_WANTED_OF_BOTH);
    }
    ku_ledger_fulfil_wish(ledger, KU_WANTED);
}

/* It is done, or cannot be. */
static void
give_up_wish(struct ku_ledger *ledger)
{
    ku_ledger_fulfil_wish(ledger, KU_WANTED_OF_BOTH);
    ku_ledger_fulfil_wish(ledger, KU_WANTED);
}

/* KU_OK: scheduled, by this call or before. */
static struct ku_outcome
schedule_update(const struct ku_tls *tls, int heard)
{
    struct ku_ledger *ledger = tls->ledger;
    int type = choose_update_type(tls, heard);
    struct ku_outcome outcome = ku_schedule_key_update(tls, type);
    if (outcome.refusal == KU_UPDATE_SCHEDULED) {
        type = SSL_KEY_UPDATE_NOT_REQUESTED; /* maybe: ask again later */
        outcome = ku_ok(0);
    }
    if (outcome.refusal == KU_OK) {
        fulfil_wish(ledger, type);
    }
    return outcome;
}

static struct ku_outcome
schedule_renegotiation(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    if (!ledger->rules.renegotiate) {
        return ku_refused_because(KU_NOT_ALLOWED,
                                  tls->libssl->SSL_get_version(tls->ssl));
    }
    struct ku_outcome outcome = ku_schedule_renegotiation(tls, 0);
    if (outcome.refusal == KU_OK) {
        give_up_wish(ledger);
    }
    return outcome;
}

static int
update_is_too_soon(const struct ku_ledger *ledger)
{
    return ledger->rules.min_interval > 0
           && ku_ledger_clock() - ledger->last_update < ledger->rules.min_interval;
}

/* OpenSSL ends its own connection (BAD_LENGTH) over any KeyUpdate that it reads
   behind one that requests an answer, while a non-blocking write of its is half-way:
   the answer waits for that write.  So behind a request of ours goes no update,
   before the peer has answered, but where the cipher suite demands it, or somebody
   has wished for it (rekey_all()). */
static struct ku_outcome
schedule_new_keys(const struct ku_tls *tls, int must, int heard)
{
    struct ku_ledger *ledger = tls->ledger;
    if (!must && update_is_too_soon(ledger)) {
        return ku_refused(KU_TOO_SOON);
    }
    if (!must && ledger->request_outstanding && !ku_policy_keys_are_wanted(ledger)) {
        return ku_refused(KU_UNANSWERED);
    }
    return ku_is_tls13(tls) ? schedule_update(tls, heard) : schedule_renegotiation(tls);
}

/* The connection is at its beginning or at its end: nothing is to be changed. */
static int
policy_is_off(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    return !ledger->connected || ledger->overuse_permitted || ledger->why_cut != NULL
           || (tls->libssl->SSL_get_shutdown(tls->ssl) & SSL_SENT_SHUTDOWN) != 0
           || ku_has_failed(tls);
}

/* An SSLObject below TLS 1.3: a write of it is all or nothing, as it may have to wait
   for a renegotiation. */
static int
writes_are_whole(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    return !ledger->is_shared && !ku_is_tls13(tls);
}

/* A client's renegotiation that begins with a write dies of data that is on its way.
   A managed socket reads meanwhile; an SSLObject begins with its next read. */
static struct ku_outcome
schedule_before_write(const struct ku_tls *tls, int must)
{
    struct ku_ledger *ledger = tls->ledger;
    if (!ledger->rules.renegotiate || !writes_are_whole(tls)
        || tls->libssl->SSL_is_server(tls->ssl)) {
        return schedule_new_keys(tls, must, 0);
    }
    struct ku_outcome may = ku_may_renegotiate(tls);
    if (may.refusal == KU_OK) {
        ku_ledger_want_keys(ledger, KU_WANTED);
        may = ku_refused(KU_READ_PENDING);
    }
    return may;
}

static int
limit_is_reached(const struct ku_tls *tls, ku_time now, size_t n, size_t room)
{
    struct ku_ledger *ledger = tls->ledger;
    return keys_are_old(&ledger->sent, now) || peer_keys_are_due(ledger, now, 0)
           || connection_was_idle(ledger, now)
           || (room < n && (room == 0 || writes_are_whole(tls)));
}

/* What another thread has asked for, and cannot be had, is no reason to refuse data. */
struct ku_outcome
ku_policy_admit_write(const struct ku_tls *tls, size_t n, size_t *room)
{
    struct ku_ledger *ledger = tls->ledger;
    ku_time now = time_if_needed(ledger);
    *room = room_under_present_keys(ledger, n);
    int reached = limit_is_reached(tls, now, n, *room);
    if (!reached && !ku_policy_keys_are_wanted(ledger)) {
        ledger->last_io = now;
        return ku_ok(0);
    }
    if (policy_is_off(tls)) {
        *room = n;
        return ku_ok(0);
    }
    int must = n > 0 && room_under_cipher_limit(ledger, n) == 0;
    struct ku_outcome outcome = schedule_before_write(tls, must);
    int whole = writes_are_whole(tls);
    if (outcome.refusal == KU_OK) {
        *room = whole ? n : room_under_fresh_keys(ledger, n);
    }
    else if (ku_is_for_good(&outcome) && !reached) {
        give_up_wish(ledger);
    }
    else if (ku_is_for_good(&outcome) || must) {
        return outcome;
    }
    else {
        ku_ledger_note_deferral(ledger);
        *room = whole ? n : room_under_cipher_limit(ledger, n);
    }
    return ku_ok(0);
}

void
ku_policy_permit_overuse(struct ku_ledger *ledger)
{
    ledger->overuse_permitted = 1;
}

int
ku_policy_renew_if_due(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    ku_time now = time_if_needed(ledger);
    int reached = keys_are_old(&ledger->sent, now) || peer_keys_are_due(ledger, now, 1);
    if (!reached && !ku_policy_keys_are_wanted(ledger)) {
        ledger->last_io = now;
        return 0;
    }
    if (policy_is_off(tls)) {
        return 0;
    }
    struct ku_outcome outcome = schedule_new_keys(tls, 0, 1);
    if (outcome.refusal == KU_OK) {
        return ku_is_tls13(tls) || tls->libssl->SSL_is_server(tls->ssl);
    }
    if (ku_is_for_good(&outcome)) {
        give_up_wish(ledger); /* a write will say it */
    }
    else {
        ku_ledger_note_deferral(ledger);
    }
    return 0;
}
