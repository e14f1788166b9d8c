#include "keys/policy.h"

#include "keys/key_clock.h"
#include "keys/notes.h"
#include "keys/scheduling.h"
#include "keys/wishes.h"
#include "openssl/errors.h"
#include "openssl/questions.h"

#define BYTES_WHILE_DEFERRED 65536 /* bytes to write before trying again */
#define SHORTEST_WAIT 1000000      /* microseconds before an idle key is tried again */

/* --- what is due ------------------------------------------------------------------ */

static int
keys_are_old(const struct ku_keys *keys, ku_time now)
{
    return keys->max_age != KU_NEVER && now - keys->since >= keys->max_age;
}

/* Nothing may be sent any more under keys that old. */
static int
keys_are_too_old(const struct ku_ledger *ledger, ku_time now)
{
    ku_time most = ledger->rules.most_age;
    return most != KU_NEVER && now - ledger->sent.since >= most;
}

/* Has the peer used its keys for longer than we would use ours?  Only one request may
   be outstanding at a time (RFC 9846 section 4.7.3).  The age counts only after data
   from the peer (`heard`): a peer that only reads never answers, and the age of its
   keys does not matter. */
static int
peer_keys_are_due(const struct ku_ledger *ledger, ku_time now, int heard)
{
    const struct ku_keys *keys = &ledger->received;
    return !ledger->request_outstanding
           && (keys->records >= keys->max_records || keys->bytes >= keys->max_bytes
               || (heard && keys->records > 0 && keys_are_old(keys, now)));
}

/* The time, or 0 if no rule needs it: then the clock is not read. */
static ku_time
time_if_needed(const struct ku_ledger *ledger)
{
    return ledger->rules.age != KU_NEVER || ledger->rules.idle != KU_NEVER
               ? ku_key_clock()
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

/* How many of n bytes fit into `records` records? */
static size_t
bytes_in_records(const struct ku_ledger *ledger, uint64_t records, size_t n)
{
    if (n <= ledger->max_fragment) {
        return records > 0 ? n : 0; /* the usual case, without a division */
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

/* How many of n bytes the cipher suite still allows, a little at a time. */
static size_t
room_under_cipher_limit(const struct ku_ledger *ledger, size_t n)
{
    return bytes_in_records(ledger,
                            uses_left(ledger->cipher_records, ledger->sent.records),
                            n < BYTES_WHILE_DEFERRED ? n : BYTES_WHILE_DEFERRED);
}

/* --- why -------------------------------------------------------------------------- */

/* A limit on records is the policy's own, or a part of what the cipher suite allows if
   that is lower (key_use.c: ku_start_sent_keys()). */
static enum ku_change
records_or_suite(const struct ku_ledger *ledger, uint64_t own, int eighths)
{
    return ledger->cipher_records / 8 * (uint64_t)eighths < own ? KU_CHANGE_AEAD_LIMIT
                                                                : KU_CHANGE_RECORDS;
}

static enum ku_change
why_peer_keys_are_due(const struct ku_ledger *ledger)
{
    const struct ku_keys *keys = &ledger->received;
    return keys->records >= keys->max_records
               ? records_or_suite(ledger, ledger->rules.received_records, 7)
           : keys->bytes >= keys->max_bytes ? KU_CHANGE_BYTES
                                            : KU_CHANGE_AGE;
}

/* Why are new keys due, before a write of n bytes or (n is 0) after a read?  Asked only
   once they are. */
static enum ku_change
why_due(const struct ku_ledger *ledger, ku_time now, size_t n, int heard)
{
    const struct ku_keys *keys = &ledger->sent;
    if (n > 0
        && bytes_in_records(ledger, uses_left(keys->max_records, keys->records), n)
               < n) {
        return records_or_suite(ledger, ledger->rules.sent_records, 6);
    }
    if (uses_left(keys->max_bytes, keys->bytes) < n) {
        return KU_CHANGE_BYTES;
    }
    if (keys_are_old(keys, now)) {
        return KU_CHANGE_AGE;
    }
    if (peer_keys_are_due(ledger, now, heard)) {
        return why_peer_keys_are_due(ledger);
    }
    long wanted = ku_atomic_get(&ledger->wanted_keys);
    return wanted == KU_NOT_WANTED ? KU_CHANGE_IDLE
           : wanted & KU_FOR_ALL   ? KU_CHANGE_REKEY_ALL
                                   : KU_CHANGE_REQUEST_REKEY;
}

/* --- scheduling it ---------------------------------------------------------------- */

/* A request of ours must not replace the answer that we owe. */
static int
choose_update_type(const struct ku_tls *tls, int heard)
{
    struct ku_ledger *ledger = tls->ledger;
    int asks = ledger->rules.request_peer || ku_wanted_keys(ledger) == KU_WANTED_OF_BOTH
               || peer_keys_are_due(ledger, time_if_needed(ledger), heard);
    int owes = ku_pending_key_update(tls) != SSL_KEY_UPDATE_NONE;
    return asks && !ledger->request_outstanding && !owes ? SSL_KEY_UPDATE_REQUESTED
                                                         : SSL_KEY_UPDATE_NOT_REQUESTED;
}

/* The wish is fulfilled.  But if the peer's new keys are wanted too, and it has not
   been asked for them, that wish remains. */
static void
fulfil_wish(struct ku_ledger *ledger, int type)
{
    if (type == SSL_KEY_UPDATE_REQUESTED || ledger->request_outstanding) {
        ku_clear_wish(ledger, KU_WANTED_OF_BOTH);
    }
    ku_clear_wish(ledger, KU_WANTED);
}

/* Forget the wish: it has been fulfilled, or cannot be. */
static void
give_up_wish(struct ku_ledger *ledger)
{
    ku_clear_wish(ledger, KU_WANTED_OF_BOTH);
    ku_clear_wish(ledger, KU_WANTED);
}

/* Returns KU_OK if an update is scheduled, by this call or an earlier one. */
static struct ku_outcome
schedule_update(const struct ku_tls *tls, int heard)
{
    struct ku_ledger *ledger = tls->ledger;
    int type = choose_update_type(tls, heard);
    struct ku_outcome outcome = ku_schedule_key_update(tls, type);
    if (outcome.refusal == KU_UPDATE_SCHEDULED) {
        type = SSL_KEY_UPDATE_NOT_REQUESTED; /* it may not request: ask again later */
        outcome = ku_ok(0);
    }
    else if (outcome.refusal == KU_OK) {
        ku_ledger_note_scheduled(ledger, ledger->why_due);
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
        ku_ledger_note_scheduled(ledger, ledger->why_due);
        give_up_wish(ledger);
    }
    return outcome;
}

static int
update_is_too_soon(const struct ku_ledger *ledger)
{
    return ledger->rules.min_interval > 0
           && ku_key_clock() - ledger->last_update < ledger->rules.min_interval;
}

/* OpenSSL ends its own connection (BAD_LENGTH) if it reads any KeyUpdate behind one
   that requests an answer while a non-blocking write of its own is half done: the
   answer waits for that write.  So after a request of ours we send no further update
   before the peer has answered, unless the cipher suite demands one, or somebody has
   wished for one (rekey_all()). */
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

/* Should the keys be left alone?  They are while the connection begins or ends, and
   once overuse is permitted. */
static int
policy_is_off(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    return !ledger->connected || ledger->overuse_permitted || ledger->why_cut != NULL
           || (tls->libssl->SSL_get_shutdown(tls->ssl) & SSL_SENT_SHUTDOWN) != 0
           || ku_has_failed(tls);
}

/* Is each write all or nothing?  It is on an SSLObject below TLS 1.3, because a write
   may have to wait for a renegotiation. */
static int
writes_are_whole(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    return !ledger->is_shared && !ku_is_tls13(tls);
}

/* A client's renegotiation that begins with a write fails over data that is on its way.
   A managed socket reads in the meantime; an SSLObject begins the renegotiation with
   its next read. */
static struct ku_outcome
schedule_before_write(const struct ku_tls *tls, int must)
{
    struct ku_ledger *ledger = tls->ledger;
    if (!ledger->rules.renegotiate || !writes_are_whole(tls)
        || tls->libssl->SSL_is_server(tls->ssl)) {
        return schedule_new_keys(tls, must, 0);
    }
    struct ku_outcome may = ku_check_renegotiation(tls);
    if (may.refusal == KU_OK) {
        ku_ledger_note_scheduled(ledger, ledger->why_due);
        ku_want_keys(ledger, KU_WANTED);
        may = ku_refused(KU_BEGINS_WITH_READ);
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

/* New keys that another thread has asked for and that are not possible are no reason to
   refuse data. */
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
    ledger->why_due = (unsigned char)why_due(ledger, now, n, 0);
    int must = n > 0 && room_under_cipher_limit(ledger, n) == 0;
    struct ku_outcome outcome = schedule_before_write(tls, must);
    int whole = writes_are_whole(tls);
    if (outcome.refusal == KU_OK) {
        *room = whole ? n : room_under_fresh_keys(ledger, n);
    }
    else if (ku_is_for_good(&outcome) && !reached) {
        give_up_wish(ledger);
    }
    else if (ku_is_for_good(&outcome) || must || keys_are_too_old(ledger, now)) {
        return outcome;
    }
    else {
        ku_ledger_note_deferral(ledger);
        *room = whole ? n : room_under_cipher_limit(ledger, n);
    }
    return ku_ok(0);
}

/* How long to leave an idle key alone that could not be changed now. */
static ku_time
patience(const struct ku_ledger *ledger, ku_time now)
{
    const struct ku_rules *rules = &ledger->rules;
    ku_time wait = rules->age / 8;
    if (rules->most_age != KU_NEVER) {
        ku_time left = ledger->sent.since + rules->most_age - now;
        wait = left > 0 && left < wait ? left : wait;
    }
    return wait > SHORTEST_WAIT ? wait : SHORTEST_WAIT;
}

/* A renegotiation takes several messages of either side, which only an owner reads. */
static struct ku_outcome
schedule_while_idle(const struct ku_tls *tls)
{
    if (!ku_is_tls13(tls)) {
        return ku_refused_because(tls->ledger->rules.renegotiate ? KU_NEEDS_OWNER
                                                                 : KU_NOT_ALLOWED,
                                  tls->libssl->SSL_get_version(tls->ssl));
    }
    return schedule_new_keys(tls, 0, 0);
}

/* Old keys could not be changed: why not, and what next? */
static struct ku_outcome
keep_idle_keys(const struct ku_tls *tls, const struct ku_outcome *refused, ku_time now,
               ku_time *wait)
{
    struct ku_ledger *ledger = tls->ledger;
    if (keys_are_too_old(ledger, now)) {
        return *refused;
    }
    if (refused->refusal == KU_TOO_SOON) {
        *wait = ledger->last_update + ledger->rules.min_interval - now;
    }
    else if (!ku_is_for_good(refused)) {
        ku_ledger_note_deferral(ledger);
        *wait = patience(ledger, now);
    }
    else if (ledger->rules.most_age != KU_NEVER) {
        *wait = ledger->sent.since + ledger->rules.most_age - now;
    }
    return ku_ok(0);
}

/* A peer's keys are left alone unless the policy always asks: one that sends nothing may
   never answer, and then none of ours would follow.  Keys that have protected nothing
   are left alone while the peer does not read: it would only have more to read. */
struct ku_outcome
ku_policy_rotate(const struct ku_tls *tls, int stuck, ku_time *wait)
{
    struct ku_ledger *ledger = tls->ledger;
    const struct ku_keys *keys = &ledger->sent;
    ku_time now = ku_key_clock();
    *wait = KU_NEVER;
    if (ledger->rules.age == KU_NEVER || ku_has_failed(tls) || ledger->why_cut != NULL
        || (tls->libssl->SSL_get_shutdown(tls->ssl) & SSL_SENT_SHUTDOWN) != 0) {
        return ku_ok(0);
    }
    *wait = ledger->rules.age;
    if (policy_is_off(tls) || ledger->inherited || (stuck && keys->records == 0)) {
        return ku_ok(0);
    }
    if (!keys_are_old(keys, now)) {
        *wait = keys->since + keys->max_age - now;
        return ku_ok(0);
    }
    ledger->why_due = KU_CHANGE_AGE;
    struct ku_outcome outcome = schedule_while_idle(tls);
    if (outcome.refusal == KU_OK) {
        *wait = keys->max_age;
        return ku_ok(1);
    }
    *wait = KU_NEVER;
    return keep_idle_keys(tls, &outcome, now, wait);
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
    ledger->why_due = (unsigned char)why_due(ledger, now, 0, 1);
    struct ku_outcome outcome = schedule_new_keys(tls, 0, 1);
    if (outcome.refusal == KU_OK) {
        return ku_is_tls13(tls) || tls->libssl->SSL_is_server(tls->ssl);
    }
    if (ku_is_for_good(&outcome)) {
        give_up_wish(ledger); /* a write reports it once a limit is reached */
    }
    else {
        ku_ledger_note_deferral(ledger);
    }
    return 0;
}
