#include "keys/ledger.h"

#include "openssl/questions.h"
#include "openssl/sslobject.h"
#include "openssl/states.h"
#include "system/forks.h"
#include "system/mutex.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* RFC 9846 section 5.5 gives AES-GCM "up to 2^24.5 full-size records".  AES-CCM gets
   2^23 from RFC 9147 section 4.5.3 (DTLS 1.3; RFC 9846 gives no number, and says that
   its bound is lower).  ChaCha20-Poly1305's sequence number wraps first. */
#define GCM_RECORD_LIMIT 23726566
#define CCM_RECORD_LIMIT 8388608
#define RECORDS_KEPT_BACK 16 /* for the KeyUpdate itself, and for alerts */
#define LEAST_LOOKS 10       /* before a renegotiation has taken too long */

/* OpenSSL passes its callbacks nothing but the SSL.  The functions that they need are
   the same in every interpreter of the process, because all of them share one _ssl. */
static struct ku_libssl libssl;
static int ex_data_index = -1;

/* Protects the list and the totals.  Held only for a moment, with or without the
   GIL. */
static ku_mutex ledgers_lock = KU_MUTEX_INITIALIZER;
static struct ku_ledger *oldest_ledger, *newest_ledger;
static uint64_t process_counts[KU_COUNT_END];
static struct ku_reasons process_reasons;
static uint64_t ledgers_opened, ledgers_open;
static struct walk *walks; /* that are under way */
static ku_time watched_since = KU_NEVER;
static ku_atomic clock_offset; /* seconds: 32 bits hold 68 years */

/* A walk through the list that releases the lock on its way. */
struct walk {
    struct ku_ledger *next;
    struct walk *other;
};

/* --- the list of ledgers ---------------------------------------------------------- */

static void
link_ledger(struct ku_ledger *ledger)
{
    ku_mutex_lock(&ledgers_lock);
    ledger->number = ++ledgers_opened;
    ledger->previous = newest_ledger;
    *(newest_ledger != NULL ? &newest_ledger->next : &oldest_ledger) = ledger;
    newest_ledger = ledger;
    ledgers_open++;
    ku_mutex_unlock(&ledgers_lock);
}

static void
unlink_ledger(struct ku_ledger *ledger)
{
    ku_mutex_lock(&ledgers_lock);
    *(ledger->next != NULL ? &ledger->next->previous : &newest_ledger) =
        ledger->previous;
    *(ledger->previous != NULL ? &ledger->previous->next : &oldest_ledger) =
        ledger->next;
    for (struct walk *walk = walks; walk != NULL; walk = walk->other) {
        walk->next = walk->next == ledger ? ledger->next : walk->next;
    }
    ledgers_open--;
    ku_mutex_unlock(&ledgers_lock);
}

void
ku_ledger_want_keys(struct ku_ledger *ledger, long wanted)
{
    long before, after;
    do { /* the first wish is the reason */
        before = ku_atomic_get(&ledger->wanted_keys);
        long what = ku_ledger_wanted_keys(ledger), more = wanted & ~(long)KU_FOR_ALL;
        long who = (before != KU_NOT_WANTED ? before : wanted) & KU_FOR_ALL;
        after = (what > more ? what : more) | who;
    } while (after != before
             && !ku_atomic_exchange(&ledger->wanted_keys, before, after));
}

long
ku_ledger_wanted_keys(const struct ku_ledger *ledger)
{
    return ku_atomic_get(&ledger->wanted_keys) & ~(long)KU_FOR_ALL;
}

void
ku_ledger_clear_wish(struct ku_ledger *ledger, long fulfilled)
{
    (void)ku_atomic_exchange(&ledger->wanted_keys, fulfilled, KU_NOT_WANTED);
    (void)ku_atomic_exchange(&ledger->wanted_keys, fulfilled | KU_FOR_ALL,
                             KU_NOT_WANTED);
}

size_t
ku_ledger_want_keys_of_all(uint64_t *last, size_t most, long wanted)
{
    size_t count = 0;
    ku_mutex_lock(&ledgers_lock);
    for (struct ku_ledger *ledger = oldest_ledger; ledger != NULL && count < most;
         ledger = ledger->next) {
        if (ledger->number > *last && !ledger->is_shared && !ledger->inherited
            && ledger->can_renew) {
            ku_ledger_want_keys(ledger, wanted);
            *last = ledger->number;
            count++;
        }
    }
    ku_mutex_unlock(&ledgers_lock);
    return count;
}

void
ku_ledger_totals(uint64_t counts[KU_COUNT_END], uint64_t *open, uint64_t *opened)
{
    ku_mutex_lock(&ledgers_lock);
    memcpy(counts, process_counts, sizeof(process_counts));
    *open = ledgers_open;
    *opened = ledgers_opened;
    ku_mutex_unlock(&ledgers_lock);
}

void
ku_ledger_reasons(struct ku_reasons *reasons)
{
    ku_mutex_lock(&ledgers_lock);
    *reasons = process_reasons;
    ku_mutex_unlock(&ledgers_lock);
}

/* Count it, also in the process's count by `reason`, if it has one. */
static void
add_to_counts(struct ku_ledger *ledger, enum ku_count what, uint64_t *reason)
{
    ku_mutex_lock(&ledgers_lock);
    ledger->counts[what]++;
    process_counts[what]++;
    if (reason != NULL) {
        (*reason)++;
    }
    ku_mutex_unlock(&ledgers_lock);
}

static void
add_to_count(struct ku_ledger *ledger, enum ku_count what)
{
    add_to_counts(ledger, what, NULL);
}

/* This side's keys have changed.  The counts of one connection are not split by reason:
   that would take more memory than all that is kept of it. */
static void
add_to_changes(struct ku_ledger *ledger, enum ku_count what, enum ku_change why)
{
    add_to_counts(ledger, what, &process_reasons.changes[why]);
    ledger->why_changed = (unsigned char)why;
    ledger->why_next = KU_CHANGE_EXPLICIT; /* unless somebody says otherwise */
}

/* --- what other threads see ------------------------------------------------------- */

#define SEEN_AT_ONCE 256 /* ledgers, while others wait for the lock */

/* Copy member by member: the owner changes two of them meanwhile. */
static struct ku_keys
view_of_keys(const struct ku_keys *keys)
{
    return (struct ku_keys){.records = KU_SEE(keys->records),
                            .bytes = KU_SEE(keys->bytes),
                            .since = keys->since,
                            .max_records = keys->max_records,
                            .max_bytes = keys->max_bytes,
                            .max_age = keys->max_age};
}

static ku_time
later_of(ku_time a, ku_time b)
{
    return a > b ? a : b;
}

/* With the lock held. */
static void
view_ledger(const struct ku_ledger *ledger, struct ku_view *view)
{
    *view = (struct ku_view){
        .number = ledger->number,
        .sent = view_of_keys(&ledger->sent),
        .received = view_of_keys(&ledger->received),
        .last_data = later_of(KU_SEE(ledger->last_data), KU_SEE(watched_since)),
        .facts = ledger->facts,
        .why_cut = KU_SEE(ledger->why_cut),
        .connected = ledger->connected,
        .can_renew = ledger->can_renew,
        .inherited = ledger->inherited,
        .answer_owed = KU_SEE(ledger->answer_owed),
        .request_outstanding = KU_SEE(ledger->request_outstanding)};
    memcpy(view->counts, ledger->counts, sizeof(view->counts));
}

void
ku_ledger_view(struct ku_ledger *ledger, struct ku_view *view)
{
    ku_mutex_lock(&ledgers_lock);
    view_ledger(ledger, view);
    ku_mutex_unlock(&ledgers_lock);
}

void
ku_ledger_watch(void)
{
    ku_time now = ku_ledger_clock();
    ku_mutex_lock(&ledgers_lock);
    if (watched_since == KU_NEVER) {
        KU_SHOW(watched_since, now);
    }
    ku_mutex_unlock(&ledgers_lock);
}

static void
end_walk(struct walk *walk)
{
    struct walk **link = &walks;
    while (*link != walk) {
        link = &(*link)->other;
    }
    *link = walk->other;
}

void
ku_ledger_view_all(void (*see)(void *argument, const struct ku_view *view),
                   void *argument)
{
    struct ku_view view;
    ku_mutex_lock(&ledgers_lock);
    struct walk walk = {.next = oldest_ledger, .other = walks};
    walks = &walk;
    for (unsigned count = 1; walk.next != NULL; count++) {
        view_ledger(walk.next, &view);
        see(argument, &view);
        walk.next = walk.next->next;
        if (count % SEEN_AT_ONCE == 0) {
            ku_mutex_unlock(&ledgers_lock);
            ku_mutex_lock(&ledgers_lock);
        }
    }
    end_walk(&walk);
    ku_mutex_unlock(&ledgers_lock);
}

/* --- forks ------------------------------------------------------------------------ */

static void
lock_ledgers(void)
{
    ku_mutex_lock(&ledgers_lock);
}

static void
unlock_ledgers(void)
{
    ku_mutex_unlock(&ledgers_lock);
}

static void
mark_inherited(void)
{
    unsigned long me = PyThread_get_thread_ident();
    walks = NULL; /* of threads that are not here */
    for (struct ku_ledger *ledger = oldest_ledger; ledger != NULL;
         ledger = ledger->next) {
        ledger->inherited = 1;
        ledger->orphaned |= ledger->busy_thread != 0 && ledger->busy_thread != me;
    }
    ku_mutex_unlock(&ledgers_lock);
}

/* Hold the list's lock across a fork(): a thread that is in the list while another
   thread forks does not exist in the child. */
static int
watch_forks(void)
{
    return ku_at_fork(lock_ledgers, unlock_ledgers, mark_inherited);
}

/* --- keys, and how long they may be used ------------------------------------------ */

static ku_time
put_forward(ku_time time)
{
    return time + (ku_time)ku_atomic_get(&clock_offset) * 1000000;
}

ku_time
ku_ledger_clock(void)
{
    return put_forward(ku_now());
}

void
ku_ledger_advance_clock(ku_time by)
{
    long before, after;
    do {
        before = ku_atomic_get(&clock_offset);
        ku_time sum = before + by / 1000000;
        after = sum < LONG_MAX ? (long)sum : LONG_MAX;
    } while (!ku_atomic_exchange(&clock_offset, before, after));
}

/* A random factor between 1 - jitter and 1, so keys never change later than the rule
   says.  (splitmix64; nothing secret depends on it.) */
static double
jittered_share(struct ku_ledger *ledger)
{
    uint64_t z = ledger->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    double chance = (double)((z ^ z >> 31) >> 11) / 9007199254740992.0; /* 2^53 */
    return 1.0 - (double)ledger->rules.jitter * chance;
}

static uint64_t
fraction_of(uint64_t limit, double of)
{
    if (limit == KU_NO_LIMIT || of >= 1.0) {
        return limit;
    }
    uint64_t some = (uint64_t)((double)limit * of);
    return some > 0 ? some : 1;
}

static uint64_t
smaller_of(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* How many records the cipher suite allows under one key.  RFC 9846 says nothing about
   TLS 1.2, so there the limit counts only if the policy may renegotiate. */
static uint64_t
cipher_limit(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    if (!ledger->rules.aead_limit
        || (!ku_is_tls13(tls) && !ledger->rules.renegotiate)) {
        return KU_NO_LIMIT;
    }
    const SSL_CIPHER *cipher = tls->libssl->SSL_get_current_cipher(tls->ssl);
    if (cipher == NULL || !tls->libssl->SSL_CIPHER_is_aead(cipher)) {
        return KU_NO_LIMIT;
    }
    switch (tls->libssl->SSL_CIPHER_get_cipher_nid(cipher)) {
    case NID_chacha20_poly1305: return KU_NO_LIMIT;
    case NID_aes_128_ccm:
    case NID_aes_192_ccm:
    case NID_aes_256_ccm: return CCM_RECORD_LIMIT;
    default: return GCM_RECORD_LIMIT;
    }
}

/* The most plaintext in one record.  A peer that has asked for shorter records (RFC
   6066 section 4) gets more of them. */
static uint32_t
max_fragment_length(const struct ku_tls *tls)
{
    const SSL_SESSION *session = tls->libssl->SSL_get_session(tls->ssl);
    int code = 0;
    if (session != NULL) {
        code = tls->libssl->SSL_SESSION_get_max_fragment_length(session);
    }
    return code >= 1 && code <= 4 ? (uint32_t)256 << code : TLS_MAX_PLAINTEXT;
}

/* NSS's margins: as the writer we update at 3/4 of what the cipher suite allows; as the
   reader we request an update at 7/8, if the peer has not updated by itself. */
static void
start_sent_keys(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    const struct ku_rules *rules = &ledger->rules;
    double some = jittered_share(ledger);
    uint64_t cipher = cipher_limit(tls);
    ledger->cipher_records =
        cipher == KU_NO_LIMIT ? cipher : cipher - RECORDS_KEPT_BACK;
    struct ku_keys fresh = {.since = ku_ledger_clock()};
    fresh.max_records =
        fraction_of(smaller_of(rules->sent_records, fraction_of(cipher, 0.75)), some);
    fresh.max_bytes = fraction_of(rules->sent_bytes, some);
    fresh.max_age =
        rules->age == KU_NEVER ? KU_NEVER : (ku_time)((double)rules->age * some);
    ledger->last_update = ledger->last_io = fresh.since;
    ledger->overuse_permitted = ledger->deferring = 0;
    ku_mutex_lock(&ledgers_lock);
    ledger->sent = fresh;
    ku_mutex_unlock(&ledgers_lock);
}

static void
start_received_keys(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    const struct ku_rules *rules = &ledger->rules;
    uint64_t cipher = cipher_limit(tls);
    struct ku_keys fresh = {.since = ku_ledger_clock()};
    fresh.max_records = smaller_of(rules->received_records, fraction_of(cipher, 0.875));
    fresh.max_bytes = rules->received_bytes;
    fresh.max_age = rules->age == KU_NEVER ? KU_NEVER : rules->age / 6 * 7;
    ku_mutex_lock(&ledgers_lock);
    ledger->received = fresh;
    ku_mutex_unlock(&ledgers_lock);
}

/* This process uses the connection now, no longer only its parent. */
static void
take_over(struct ku_ledger *ledger)
{
    if (ledger->inherited) {
        ku_mutex_lock(&ledgers_lock);
        ledger->inherited = 0;
        ku_mutex_unlock(&ledgers_lock);
    }
}

static void
count_data(struct ku_ledger *ledger, struct ku_keys *keys, uint64_t records,
           size_t bytes)
{
    KU_SHOW(keys->records, keys->records + records);
    KU_SHOW(keys->bytes, keys->bytes + bytes);
    if (KU_SEE(watched_since) != KU_NEVER) {
        KU_SHOW(ledger->last_data, put_forward(ku_now_roughly()));
    }
}

/* Data that we send counts as progress too: a peer that only receives may still request
   key updates. */
void
ku_ledger_count_sent(struct ku_ledger *ledger, size_t bytes)
{
    take_over(ledger);
    ledger->in_a_row = bytes > 0 ? 0 : ledger->in_a_row;
    count_data(ledger, &ledger->sent,
               bytes > ledger->max_fragment ? (bytes - 1) / ledger->max_fragment + 1
                                            : bytes > 0,
               bytes);
}

void
ku_ledger_count_received(struct ku_ledger *ledger, size_t bytes, int begins)
{
    count_data(ledger, &ledger->received, begins != 0, bytes);
    take_over(ledger);
    ledger->in_a_row = 0;
}

void
ku_ledger_count_begun(struct ku_ledger *ledger)
{
    count_data(ledger, &ledger->received, 1, 0);
}

void
ku_ledger_note_deferral(struct ku_ledger *ledger)
{
    if (!ledger->deferring) {
        ledger->deferring = 1;
        add_to_count(ledger, KU_COUNT_DEFERRED);
        ledger->events |= KU_EVENT_DEFERRED;
    }
}

struct ku_outcome
ku_ledger_occupy(struct ku_ledger *ledger)
{
    unsigned long me = PyThread_get_thread_ident();
    if (ledger->busy_thread == 0) {
        ledger->busy_thread = me;
        return (struct ku_outcome){.refusal = KU_OK};
    }
    enum ku_refusal refusal = ledger->orphaned            ? KU_FORKED
                              : ledger->busy_thread == me ? KU_IN_CALLBACK
                                                          : KU_BUSY;
    return (struct ku_outcome){.refusal = refusal};
}

void
ku_ledger_vacate(struct ku_ledger *ledger)
{
    ledger->busy_thread = 0;
}

void
ku_ledger_note_scheduled(struct ku_ledger *ledger, enum ku_change why)
{
    if (ledger->why_next == KU_CHANGE_EXPLICIT) {
        ledger->why_next = (unsigned char)why;
    }
}

void
ku_ledger_note_refused_write(struct ku_ledger *ledger)
{
    add_to_count(ledger, KU_COUNT_WRITES_REFUSED);
}

/* To compare the counts of records costs reading nothing, unlike a flag that each read
   would have to clear.

   Many peers, most HTTP clients among them, just close when they have what they wanted.
   So that is suspicious only if they have got nothing but our KeyUpdate.  (One that
   fails over it, with data behind it unread, resets the connection when it closes.) */
void
ku_ledger_note_end(struct ku_ledger *ledger, int merely)
{
    if (merely && ledger->sent.records > 0) {
        return;
    }
    if (ledger->unheard && (uint32_t)ledger->received.records == ledger->heard_before) {
        add_to_count(ledger, KU_COUNT_FAILED_AFTER_UPDATE);
        ledger->events |= KU_EVENT_FAILED;
    }
    ledger->unheard = 0;
}

int
ku_ledger_note_impossible(struct ku_ledger *ledger, enum ku_cause cause)
{
    ku_mutex_lock(&ledgers_lock); /* several threads may write to a managed socket */
    int is_first = !ledger->impossible;
    ledger->impossible = 1;
    ku_mutex_unlock(&ledgers_lock);
    if (is_first) {
        add_to_counts(ledger, KU_COUNT_IMPOSSIBLE, &process_reasons.causes[cause]);
    }
    return is_first;
}

int
ku_ledger_take_events(struct ku_ledger *ledger)
{
    int events = ledger->events;
    ledger->events = 0;
    return events;
}

/* --- what OpenSSL reports --------------------------------------------------------- */

/* Count one more event; is it one too many?  This is a bucket that holds `most` events
   and drains within `length`; `until` is when it will be empty (the generic cell rate
   algorithm).  A peer that never exceeds `most` within such a time is never cut off. */
static int
exceeds_rate(ku_time *until, ku_time length, uint32_t most)
{
    ku_time now = ku_ledger_clock();
    if (most == KU_ANY_NUMBER || most == 0) {
        return most == 0;
    }
    *until = (*until > now ? *until : now) + length / most;
    return *until > now + length;
}

static void
forbid_renegotiation(const struct ku_tls *tls)
{
    (void)tls->libssl->SSL_set_options(tls->ssl, SSL_OP_NO_RENEGOTIATION);
}

/* From here on OpenSSL reads no further record and accepts no handshake. */
static void
cut_off_peer(const struct ku_tls *tls, enum ku_limit limit)
{
    struct ku_ledger *ledger = tls->ledger;
    forbid_renegotiation(tls);
    tls->libssl->SSL_set_shutdown(tls->ssl, tls->libssl->SSL_get_shutdown(tls->ssl)
                                                | SSL_RECEIVED_SHUTDOWN);
    if (ledger->why_cut == NULL) {
        KU_SHOW(ledger->why_cut, ku_limit_names[limit]);
        ledger->events |= KU_EVENT_CUT_OFF;
        add_to_counts(ledger, KU_COUNT_CUT_OFF, &process_reasons.limits[limit]);
    }
}

static void
note_update_sent(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    add_to_changes(ledger, KU_COUNT_UPDATES_SENT, ledger->why_next);
    ledger->unheard = 1;
    ledger->heard_before = (uint32_t)ledger->received.records;
    if (ledger->requesting) {
        add_to_count(ledger, KU_COUNT_REQUESTS_SENT);
        KU_SHOW(ledger->request_outstanding, 1);
        ledger->answers_due++;
        ledger->requesting = 0;
    }
    KU_SHOW(ledger->answer_owed, 0); /* any update is an answer */
    start_sent_keys(tls);
    ledger->events |= KU_EVENT_UPDATE_SENT;
}

/* The answer to a request of ours is not held against the peer.  A KeyUpdate that
   itself requests an update is no answer: an answer is update_not_requested (RFC 9846
   section 4.7.3).  The pending type belongs to this message, because OpenSSL sends an
   answer that it owes before it reads the next KeyUpdate. */
static void
note_update_received(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    int requests = ku_pending_key_update(tls) == SSL_KEY_UPDATE_NOT_REQUESTED;
    add_to_count(ledger, KU_COUNT_UPDATES_RECEIVED);
    start_received_keys(tls);
    ledger->events |= KU_EVENT_UPDATE_RECEIVED;
    ledger->unheard = 0;
    if (requests) {
        KU_SHOW(ledger->answer_owed, 1);
        add_to_count(ledger, KU_COUNT_REQUESTS_RECEIVED);
        ku_ledger_note_scheduled(ledger, KU_CHANGE_PEER_ASKED);
    }
    else if (ledger->answers_due > 0) {
        ledger->answers_due--;
        KU_SHOW(ledger->request_outstanding, 0);
        return;
    }
    const struct ku_rules *rules = &ledger->rules;
    if (exceeds_rate(&ledger->updates_until, rules->key_update_window,
                     rules->key_updates)) {
        cut_off_peer(tls, KU_LIMIT_KEY_UPDATES);
    }
    ku_time now = ku_ledger_clock();
    if (ledger->in_a_row == 0 || now - ledger->row_began > rules->key_update_window) {
        ledger->row_began = now;
        ledger->in_a_row = 0;
    }
    ledger->in_a_row++;
    if (ledger->in_a_row > rules->key_updates_in_a_row
        && rules->key_updates_in_a_row != KU_ANY_NUMBER) {
        cut_off_peer(tls, KU_LIMIT_KEY_UPDATES_IN_A_ROW);
    }
}

static void
note_ticket_received(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    const struct ku_rules *rules = &ledger->rules;
    if (exceeds_rate(&ledger->tickets_until, rules->session_ticket_window,
                     rules->session_tickets)) {
        cut_off_peer(tls, KU_LIMIT_SESSION_TICKETS);
    }
}

/* The type of a KeyUpdate is set before OpenSSL builds the message, while the state is
   KU_STATE_READY, and is gone once the message is built. */
static void
note_state(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    switch (ku_tls_state(tls)) {
    case KU_STATE_READY:
        ledger->requesting = ku_pending_key_update(tls) == SSL_KEY_UPDATE_REQUESTED;
        break;
    case KU_STATE_SENT_KEY_UPDATE: note_update_sent(tls); break;
    case KU_STATE_READ_KEY_UPDATE: note_update_received(tls); break;
    case KU_STATE_READ_TICKET: note_ticket_received(tls); break;
    default: break;
    }
}

static void
count_peer_renegotiation(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    const struct ku_rules *rules = &ledger->rules;
    if (exceeds_rate(&ledger->renegotiations_until, rules->renegotiation_window,
                     rules->renegotiations)) {
        cut_off_peer(tls, KU_LIMIT_RENEGOTIATIONS);
    }
}

/* SSL_renegotiate_pending() means that this side has asked: for a server, by its own
   HelloRequest, and then for the handshake that follows.  A HelloRequest that a client
   receives, and a ClientHello that comes unasked, are the peer's. */
static void
note_handshake_start(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    ledger->renegotiates = ledger->connected;
    ledger->renegotiation_seen = ku_ledger_clock();
    ledger->renegotiation_taken = 0;
    if (ledger->connected && !ku_renegotiates(tls)) {
        ledger->by_peer = 1;
        count_peer_renegotiation(tls);
    }
}

/* A server waits for its client from the ClientHello on.  A client's time begins when it
   has the server's answer: until then the server may still be sending data, for as long
   as it likes, and has not looked.  (Between a server's own HelloRequest and the
   ClientHello, OpenSSL is not "in init".)

   Nor does time count against a peer in which the program did something else: what the
   peer sent then is still unread, and there may have been no room for the rest.  How
   much of the time between two looks that was, nobody knows.  So no such time counts
   for more than a tenth of the limit: a peer whose messages take fewer looks than that
   is never cut off for our absence, and one that stalls has ten.

   Bytes that complete no message call no callback.  So this is asked before each step,
   not in the info callback. */
void
ku_ledger_check_renegotiation(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    if (ledger == NULL || !ledger->renegotiates || ledger->why_cut != NULL
        || ledger->rules.renegotiation_time == KU_NEVER
        || tls->libssl->SSL_is_init_finished(tls->ssl)) {
        return;
    }
    ku_time now = ku_ledger_clock();
    ku_time passed = now - ledger->renegotiation_seen;
    ku_time most = ledger->rules.renegotiation_time / LEAST_LOOKS;
    ledger->renegotiation_seen = now;
    if (ku_tls_state(tls) == KU_STATE_SENT_HELLO) {
        ledger->renegotiation_taken = 0;
        return;
    }
    ledger->renegotiation_taken += passed < most ? passed : most;
    if (ledger->renegotiation_taken >= most * LEAST_LOOKS) {
        cut_off_peer(tls, KU_LIMIT_RENEGOTIATION_SECONDS);
    }
}

static void
note_connected(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    ledger->max_fragment = max_fragment_length(tls);
    start_sent_keys(tls);
    start_received_keys(tls);
    KU_SHOW(ledger->last_data, ledger->last_io);
    int version = tls->libssl->SSL_version(tls->ssl);
    const SSL_CIPHER *cipher = tls->libssl->SSL_get_current_cipher(tls->ssl);
    ku_mutex_lock(&ledgers_lock);
    ledger->connected = 1;
    ledger->facts.cipher = cipher;
    ledger->facts.version = (unsigned short)version;
    ledger->can_renew = version == TLS1_3_VERSION || ledger->rules.renegotiate;
    ku_mutex_unlock(&ledgers_lock);
}

static void
note_handshake_done(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    if (!ledger->connected) {
        note_connected(tls);
        ledger->last_update = ku_ledger_clock() - ledger->rules.min_interval;
        return;
    }
    if (ku_renegotiates(tls)) {
        return; /* only a HelloRequest was sent */
    }
    if (ledger->why_cut != NULL || !ledger->renegotiates) {
        return; /* refused; OpenSSL calls that done, too */
    }
    ledger->renegotiates = 0;
    note_connected(tls);
    add_to_changes(ledger,
                   ledger->by_peer ? KU_COUNT_PEER_RENEGOTIATIONS
                                   : KU_COUNT_RENEGOTIATIONS,
                   ledger->by_peer ? KU_CHANGE_PEER_ASKED : ledger->why_next);
    if (ledger->by_peer && ledger->rules.mode == KU_ONCE && !ledger->allowed) {
        forbid_renegotiation(tls);
    }
    ledger->by_peer = 0;
    ledger->events |= KU_EVENT_RENEGOTIATED;
}

static void
note_refused_renegotiation(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    add_to_count(ledger, KU_COUNT_REFUSED);
    ledger->renegotiates = 0;
    if (ledger->by_peer) {
        ledger->by_peer = 0; /* it was counted when it began */
    }
    else {
        count_peer_renegotiation(tls);
    }
    if (ledger->why_cut == NULL) {
        ledger->events |= KU_EVENT_PEER_REFUSED; /* a cut-off says more */
    }
}

/* The info callback.  OpenSSL calls it inside SSL_read() and similar functions, often
   without the GIL.  (1.1.1 and 1.1.1a report the start and the end of a handshake
   around a KeyUpdate.) */
static void
info_callback(const SSL *const_ssl, int where, int value)
{
    const struct ku_tls tls = {.libssl = &libssl,
                               .ssl = (SSL *)(uintptr_t)const_ssl,
                               .ledger = ku_ledger_of(const_ssl)};
    if (tls.ledger == NULL) {
        return;
    }
    int is_tls13 = ku_is_tls13(&tls);
    if (where & SSL_CB_LOOP) {
        if (is_tls13 && tls.ledger->connected) {
            note_state(&tls);
        }
    }
    else if (where == SSL_CB_WRITE_ALERT && value == SSL_CB_NO_RENEGOTIATION) {
        note_refused_renegotiation(&tls);
    }
    else if (where & SSL_CB_ALERT && value == SSL_CB_CLOSE_NOTIFY) {
        tls.ledger->unheard = 0; /* it ends as it should */
    }
    else if (is_tls13 && tls.ledger->connected) {
        return;
    }
    else if (where == SSL_CB_HANDSHAKE_START) {
        note_handshake_start(&tls);
    }
    else if (where == SSL_CB_HANDSHAKE_DONE) {
        note_handshake_done(&tls);
    }
}

/* --- the ledger of an SSL --------------------------------------------------------- */

/* The free function of the ex_data.  From 3.2 on, OpenSSL has freed everything else of
   the SSL by then, so this function must not touch it (ssl_lib.c,
   ossl_ssl_connection_free()). */
static void
free_ledger(void *parent, void *data, void *ex_data, int index, long number,
            void *pointer)
{
    (void)parent, (void)ex_data, (void)index, (void)number, (void)pointer;
    if (data != NULL) {
        unlink_ledger(data);
        free(data);
    }
}

/* The dup function of the ex_data.  SSL_dup() would copy the pointer, and the ledger
   would be freed twice. */
static int
forget_ledger_in_copy(void *to, const void *from, void *data, int index, long number,
                      void *pointer)
{
    (void)to, (void)from, (void)index, (void)number, (void)pointer;
    *(void **)data = NULL;
    return 1;
}

int
ku_ledger_prepare(const struct ku_libssl *functions)
{
    ku_mutex_lock(&ledgers_lock);
    if (ex_data_index < 0) {
        libssl = *functions;
        ex_data_index = libssl.CRYPTO_get_ex_new_index(
            CRYPTO_EX_INDEX_SSL, 0, NULL, NULL, forget_ledger_in_copy, free_ledger);
        ex_data_index = ex_data_index >= 0 && watch_forks() == 0 ? ex_data_index : -1;
    }
    ku_mutex_unlock(&ledgers_lock);
    return ex_data_index < 0 ? -1 : 0;
}

struct ku_ledger *
ku_ledger_of(const SSL *ssl)
{
    return libssl.SSL_get_ex_data(ssl, ex_data_index);
}

int
ku_ledger_tls(const ku_state *state, PyObject *sslobj, struct ku_tls *tls)
{
    *tls = (struct ku_tls){.libssl = &state->libssl};
    tls->ssl = ku_sslobject_ssl(state, sslobj);
    tls->ledger = tls->ssl != NULL ? ku_ledger_of(tls->ssl) : NULL;
    return tls->ssl != NULL;
}

void
ku_ledger_share(struct ku_ledger *ledger)
{
    ku_mutex_lock(&ledgers_lock);
    ledger->is_shared = 1;
    ku_mutex_unlock(&ledgers_lock);
}

struct ku_facts
ku_ledger_facts(const struct ku_ledger *ledger)
{
    ku_mutex_lock(&ledgers_lock);
    struct ku_facts facts = ledger->facts;
    ku_mutex_unlock(&ledgers_lock);
    return facts;
}

struct ku_ledger *
ku_ledger_open(SSL *ssl, const struct ku_rules *rules)
{
    struct ku_ledger *ledger = calloc(1, sizeof(*ledger));
    if (ledger == NULL) {
        return NULL;
    }
    ledger->rules = *rules;
    ledger->max_fragment = TLS_MAX_PLAINTEXT;
    ledger->random = (uint64_t)(uintptr_t)ledger ^ (uint64_t)ku_now();
    ledger->facts.is_server = libssl.SSL_is_server(ssl) != 0;
    ledger->cipher_records = KU_NO_LIMIT;
    ledger->sent = ledger->received = (struct ku_keys){
        .max_records = KU_NO_LIMIT, .max_bytes = KU_NO_LIMIT, .max_age = KU_NEVER};
    link_ledger(ledger);
    if (!libssl.SSL_set_ex_data(ssl, ex_data_index, ledger)) {
        free_ledger(NULL, ledger, NULL, 0, 0, NULL);
        return NULL;
    }
    libssl.SSL_set_info_callback(ssl, info_callback);
    if (rules->mode == KU_NEVER_RENEGOTIATE) {
        forbid_renegotiation(&(struct ku_tls){.libssl = &libssl, .ssl = ssl});
    }
    return ledger;
}

/* OpenSSL 3.0 and later also refuse a client's renegotiation unless
   SSL_OP_ALLOW_CLIENT_RENEGOTIATION is set. */
void
ku_ledger_allow_renegotiation(const struct ku_tls *tls, int change)
{
    struct ku_ledger *ledger = tls->ledger;
    const uint64_t both = SSL_OP_NO_RENEGOTIATION | SSL_OP_ALLOW_CLIENT_RENEGOTIATION;
    if (change > 0 && ledger->allowed++ == 0) {
        ledger->options_before = tls->libssl->SSL_get_options(tls->ssl) & both;
        if (ledger->why_cut == NULL) {
            (void)tls->libssl->SSL_clear_options(tls->ssl, SSL_OP_NO_RENEGOTIATION);
            (void)tls->libssl->SSL_set_options(tls->ssl,
                                               SSL_OP_ALLOW_CLIENT_RENEGOTIATION);
        }
    }
    if (change < 0 && --ledger->allowed == 0 && ledger->why_cut == NULL) {
        (void)tls->libssl->SSL_clear_options(tls->ssl, both);
        (void)tls->libssl->SSL_set_options(tls->ssl, ledger->options_before);
    }
}
