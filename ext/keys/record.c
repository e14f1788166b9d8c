#include "keys/record.h"

#include "calls/controls.h"
#include "system/mutex.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Constants of OpenSSL's public headers, the same from 1.1.1 to 4.0. */
#define CRYPTO_EX_INDEX_SSL 0
#define SSL_CB_LOOP 0x01
#define SSL_CB_HANDSHAKE_START 0x10
#define SSL_CB_HANDSHAKE_DONE 0x20
#define SSL_CB_WRITE_ALERT 0x4008
#define NO_RENEGOTIATION_WARNING 0x0164
#define SSL_OP_ALLOW_CLIENT_RENEGOTIATION ((uint64_t)1 << 8)
#define NID_aes_128_ccm 896
#define NID_aes_192_ccm 899
#define NID_aes_256_ccm 902
#define NID_chacha20_poly1305 1018

#define RECORD 16384

/* RFC 9846 section 5.5: AES-GCM, "up to 2^24.5 full-size records".  AES-CCM has 2^23
   in RFC 9147 section 4.5.3 (DTLS 1.3; RFC 9846 gives no number, and says that its
   bound is lower).  ChaCha20-Poly1305's sequence number wraps first. */
#define MOST_GCM 23726566
#define MOST_CCM 8388608
#define LAST_WORDS 16 /* records kept back for the KeyUpdate itself, and alerts */

/* OpenSSL calls with nothing but the SSL.  What is needed of it is the same in every
   interpreter of the process, which has one _ssl. */
static struct ku_libssl libssl;
static int place = -1;

/* Guards all that follows; taken for a moment, with the GIL or without. */
static ku_mutex everything = KU_MUTEX_INITIALIZER;
static struct ku_record *oldest, *newest;
static uint64_t totals[KU_COUNTS];
static uint64_t ever, there_are;
static ku_atomic put_forward; /* seconds, of which 32 bits hold 68 years */

/* --- the list of all ------------------------------------------------------------ */

static void
enlist(struct ku_record *record)
{
    ku_mutex_lock(&everything);
    record->number = ++ever;
    record->previous = newest;
    *(newest != NULL ? &newest->next : &oldest) = record;
    newest = record;
    there_are++;
    ku_mutex_unlock(&everything);
}

static void
strike_off(struct ku_record *record)
{
    ku_mutex_lock(&everything);
    *(record->next != NULL ? &record->next->previous : &newest) = record->previous;
    *(record->previous != NULL ? &record->previous->next : &oldest) = record->next;
    there_are--;
    ku_mutex_unlock(&everything);
}

void
ku_record_want(struct ku_record *record, long wanted)
{
    long before = ku_atomic_get(&record->wanted);
    while (before < wanted && !ku_atomic_exchange(&record->wanted, before, wanted)) {
        before = ku_atomic_get(&record->wanted);
    }
}

void
ku_record_fulfil(struct ku_record *record, long fulfilled)
{
    (void)ku_atomic_exchange(&record->wanted, fulfilled, KU_NOT_WANTED);
}

size_t
ku_record_want_all(uint64_t *last, size_t most, long wanted)
{
    size_t count = 0;
    ku_mutex_lock(&everything);
    for (struct ku_record *record = oldest; record != NULL && count < most;
         record = record->next) {
        if (record->number > *last && !record->is_shared && !record->inherited
            && record->can_renew) {
            ku_record_want(record, wanted);
            *last = record->number;
            count++;
        }
    }
    ku_mutex_unlock(&everything);
    return count;
}

void
ku_record_totals(uint64_t counts[KU_COUNTS], uint64_t *open, uint64_t *opened)
{
    ku_mutex_lock(&everything);
    memcpy(counts, totals, sizeof(totals));
    *open = there_are;
    *opened = ever;
    ku_mutex_unlock(&everything);
}

static void
count(struct ku_record *record, enum ku_count what)
{
    record->counts[what]++;
    ku_mutex_lock(&everything);
    totals[what]++;
    ku_mutex_unlock(&everything);
}

#ifndef _WIN32
static void
lock_everything(void)
{
    ku_mutex_lock(&everything);
}
static void
unlock_everything(void)
{
    ku_mutex_unlock(&everything);
}

static void
in_child(void)
{
    unsigned long me = PyThread_get_thread_ident();
    for (struct ku_record *record = oldest; record != NULL; record = record->next) {
        record->inherited = 1;
        record->orphaned |= record->busy != 0 && record->busy != me;
    }
    ku_mutex_unlock(&everything);
}

/* A thread that is in the list while another forks does not exist in the child. */
static int
watch_forks(void)
{
    return pthread_atfork(lock_everything, unlock_everything, in_child);
}
#else
static int
watch_forks(void)
{
    return 0;
}
#endif

/* --- keys, and how much they may be used ----------------------------------------- */

ku_time
ku_record_clock(void)
{
    return ku_now() + (ku_time)ku_atomic_get(&put_forward) * 1000000;
}

void
ku_record_put_forward(ku_time by)
{
    long before, after;
    do {
        before = ku_atomic_get(&put_forward);
        ku_time sum = before + by / 1000000;
        after = sum < LONG_MAX ? (long)sum : LONG_MAX;
    } while (!ku_atomic_exchange(&put_forward, before, after));
}

/* Between 1 - jitter and 1: never later than the rule says.  (splitmix64; nothing
   secret comes of it.) */
static double
share(struct ku_record *record)
{
    uint64_t z = record->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    double chance = (double)((z ^ z >> 31) >> 11) / 9007199254740992.0; /* 2^53 */
    return 1.0 - (double)record->rules.jitter * chance;
}

static uint64_t
part(uint64_t limit, double of)
{
    if (limit == KU_NO_LIMIT || of >= 1.0) {
        return limit;
    }
    uint64_t some = (uint64_t)((double)limit * of);
    return some > 0 ? some : 1;
}

static uint64_t
least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* How many records the cipher suite is good for, under one key.  What RFC 9846 does
   not say of TLS 1.2 counts only where something can be done about it. */
static uint64_t
cipher_limit(const struct ku_record *record, const SSL *ssl)
{
    if (!record->rules.aead_limit
        || (libssl.SSL_version(ssl) != TLS1_3_VERSION && !record->rules.renegotiate)) {
        return KU_NO_LIMIT;
    }
    const SSL_CIPHER *cipher = libssl.SSL_get_current_cipher(ssl);
    if (cipher == NULL || !libssl.SSL_CIPHER_is_aead(cipher)) {
        return KU_NO_LIMIT;
    }
    switch (libssl.SSL_CIPHER_get_cipher_nid(cipher)) {
    case NID_chacha20_poly1305:
        return KU_NO_LIMIT;
    case NID_aes_128_ccm:
    case NID_aes_192_ccm:
    case NID_aes_256_ccm:
        return MOST_CCM;
    default:
        return MOST_GCM;
    }
}

/* A peer that has asked for less in a record (RFC 6066 section 4) gets more records. */
static uint32_t
most_in_a_record(const SSL *ssl)
{
    const SSL_SESSION *session = libssl.SSL_get_session(ssl);
    int code = 0;
    if (session != NULL) {
        code = libssl.SSL_SESSION_get_max_fragment_length(session);
    }
    return code >= 1 && code <= 4 ? (uint32_t)256 << code : RECORD;
}

/* NSS' margins: the writer moves at 3/4 of what the cipher is good for, and the
   reader asks at 7/8, if the peer has not moved by itself. */
static void
renew_sent(struct ku_record *record, const SSL *ssl)
{
    const struct ku_rules *rules = &record->rules;
    double some = share(record);
    uint64_t cipher = cipher_limit(record, ssl);
    record->hard_records = cipher == KU_NO_LIMIT ? cipher : cipher - LAST_WORDS;
    record->sent = (struct ku_keys){.since = ku_record_clock()};
    record->sent.most_records =
        part(least(rules->sent_records, part(cipher, 0.75)), some);
    record->sent.most_bytes = part(rules->sent_bytes, some);
    record->sent.most_age =
        rules->age == KU_NEVER ? KU_NEVER : (ku_time)((double)rules->age * some);
    record->last_update = record->last_io = record->sent.since;
    record->excused = record->deferring = 0;
}

static void
renew_received(struct ku_record *record, const SSL *ssl)
{
    const struct ku_rules *rules = &record->rules;
    uint64_t cipher = cipher_limit(record, ssl);
    record->received = (struct ku_keys){.since = ku_record_clock()};
    record->received.most_records = least(rules->received_records, part(cipher, 0.875));
    record->received.most_bytes = rules->received_bytes;
    record->received.most_age = rules->age == KU_NEVER ? KU_NEVER : rules->age / 6 * 7;
}

/* Data of ours is progress too: a peer that only receives may still ask for keys. */
void
ku_record_sent(struct ku_record *record, size_t bytes)
{
    record->inherited = 0;
    record->in_a_row = bytes > 0 ? 0 : record->in_a_row;
    record->sent.bytes += bytes;
    record->sent.records +=
        bytes > record->fragment ? (bytes - 1) / record->fragment + 1 : bytes > 0;
}

void
ku_record_received(struct ku_record *record, size_t bytes, int begins)
{
    record->received.bytes += bytes;
    record->received.records += begins != 0;
    record->inherited = 0;
    record->in_a_row = 0;
}

void
ku_record_defer(struct ku_record *record)
{
    if (!record->deferring) {
        record->deferring = 1;
        count(record, KU_DEFERRALS);
        record->events |= KU_DEFERRED;
    }
}

int
ku_record_peek(const struct ku_libssl *functions, SSL *ssl)
{
    struct ku_record *record = ku_record_of(ssl);
    int begins = functions->SSL_pending(ssl) == 0;
    char first;
    int got = functions->SSL_peek(ssl, &first, 1);
    if (record != NULL && got > 0 && begins) {
        record->received.records++; /* who reads it finds it begun */
    }
    return got;
}

struct ku_outcome
ku_record_occupy(struct ku_record *record)
{
    unsigned long me = PyThread_get_thread_ident();
    if (record->busy == 0) {
        record->busy = me;
        return (struct ku_outcome){.refusal = KU_OK};
    }
    enum ku_refusal refusal = record->orphaned     ? KU_FORKED
                              : record->busy == me ? KU_IN_CALLBACK
                                                   : KU_BUSY;
    return (struct ku_outcome){.refusal = refusal};
}

void
ku_record_vacate(struct ku_record *record)
{
    record->busy = 0;
}

int
ku_record_note_impossible(struct ku_record *record)
{
    int is_first = !record->impossible;
    if (is_first) {
        record->impossible = 1;
        count(record, KU_IMPOSSIBLES);
    }
    return is_first;
}

int
ku_record_take_events(struct ku_record *record)
{
    int events = record->events;
    record->events = 0;
    return events;
}

/* --- what OpenSSL tells ----------------------------------------------------------- */

/* One more; is it one too many?  A bucket that holds `most` and is empty again after
   `length`: `until` is when (the generic cell rate algorithm).  A peer that never has
   more than `most` in such a time is never cut. */
static int
exceeds(ku_time *until, ku_time length, uint32_t most)
{
    ku_time now = ku_record_clock();
    if (most == KU_ANY_NUMBER || most == 0) {
        return most == 0;
    }
    *until = (*until > now ? *until : now) + length / most;
    return *until > now + length;
}

static void
forbid_renegotiation(SSL *ssl)
{
    (void)libssl.SSL_set_options(ssl, SSL_OP_NO_RENEGOTIATION);
}

/* OpenSSL reads no further record, and accepts no handshake. */
static void
cut(struct ku_record *record, SSL *ssl, const char *why)
{
    forbid_renegotiation(ssl);
    libssl.SSL_set_shutdown(ssl, libssl.SSL_get_shutdown(ssl) | SSL_RECEIVED_SHUTDOWN);
    if (record->why_cut == NULL) {
        record->why_cut = why;
        record->events |= KU_CUT;
        count(record, KU_CUTS);
    }
}

static void
update_sent(struct ku_record *record, const SSL *ssl)
{
    count(record, KU_UPDATES_SENT);
    if (record->requesting) {
        count(record, KU_REQUESTS_SENT);
        record->outstanding = 1;
        record->answers++;
        record->requesting = 0;
    }
    renew_sent(record, ssl);
    record->events |= KU_SENT_UPDATE;
}

/* The answer to a request of ours is not held against the peer.  None is one that
   requests itself: an answer is update_not_requested (RFC 9846 section 4.7.3).  The
   pending type is this message's, as OpenSSL sends an answer that it owes before it
   reads the next. */
static void
update_received(struct ku_record *record, SSL *ssl)
{
    int requests = ku_pending_key_update(&libssl, ssl) == SSL_KEY_UPDATE_NOT_REQUESTED;
    count(record, KU_UPDATES_RECEIVED);
    renew_received(record, ssl);
    record->events |= KU_RECEIVED_UPDATE;
    if (requests) {
        count(record, KU_REQUESTS_RECEIVED);
    }
    else if (record->answers > 0) {
        record->answers--;
        record->outstanding = 0;
        return;
    }
    const struct ku_rules *rules = &record->rules;
    if (exceeds(&record->updates_until, rules->key_update_window, rules->key_updates)) {
        cut(record, ssl, "key updates (PeerLimits.key_updates)");
    }
    ku_time now = ku_record_clock();
    if (record->in_a_row == 0 || now - record->row_began > rules->key_update_window) {
        record->row_began = now;
        record->in_a_row = 0;
    }
    record->in_a_row++;
    if (record->in_a_row > rules->key_updates_in_a_row
        && rules->key_updates_in_a_row != KU_ANY_NUMBER) {
        cut(record, ssl, "key updates in a row (PeerLimits.key_updates_in_a_row)");
    }
}

/* The names tell the states apart; their numbers differ between 3.0 and 3.2.  The
   type of a KeyUpdate is there before the message is built, in state SSLOK, and
   gone when it is sent. */
static void
state_changed(struct ku_record *record, SSL *ssl)
{
    const char *name = libssl.SSL_state_string(ssl);
    if (strncmp(name, "SSLOK", 5) == 0) {
        record->requesting =
            ku_pending_key_update(&libssl, ssl) == SSL_KEY_UPDATE_REQUESTED;
    }
    else if (strcmp(name, "TWCKU") == 0 || strcmp(name, "TWSKU") == 0) {
        update_sent(record, ssl);
    }
    else if (strcmp(name, "TRCKU") == 0 || strcmp(name, "TRSKU") == 0) {
        update_received(record, ssl);
    }
}

static void
peer_renegotiates(struct ku_record *record, SSL *ssl)
{
    const struct ku_rules *rules = &record->rules;
    if (exceeds(&record->renegotiations_until, rules->renegotiation_window,
                rules->renegotiations)) {
        cut(record, ssl, "renegotiations (PeerLimits.renegotiations)");
    }
}

/* "Pending" says that this side has asked for it: a server's own HelloRequest, and
   the handshake that follows.  A HelloRequest that a client receives, and a
   ClientHello that comes unasked, are the peer's. */
static void
handshake_began(struct ku_record *record, SSL *ssl)
{
    record->renegotiates = record->connected;
    if (record->connected && !ku_renegotiates(&libssl, ssl)) {
        record->by_peer = 1;
        peer_renegotiates(record, ssl);
    }
}

static void
connected(struct ku_record *record, const SSL *ssl)
{
    record->connected = 1;
    record->fragment = most_in_a_record(ssl);
    renew_sent(record, ssl);
    renew_received(record, ssl);
    ku_mutex_lock(&everything);
    record->can_renew =
        libssl.SSL_version(ssl) == TLS1_3_VERSION || record->rules.renegotiate;
    ku_mutex_unlock(&everything);
}

static void
handshake_done(struct ku_record *record, SSL *ssl)
{
    if (!record->connected) {
        connected(record, ssl);
        record->last_update = ku_record_clock() - record->rules.min_interval;
        return;
    }
    if (ku_renegotiates(&libssl, ssl)) {
        return; /* no more than a HelloRequest */
    }
    if (record->why_cut != NULL || !record->renegotiates) {
        return; /* refused: OpenSSL calls that done, too */
    }
    record->renegotiates = 0;
    connected(record, ssl);
    count(record, record->by_peer ? KU_PEER_RENEGOTIATIONS : KU_RENEGOTIATIONS);
    if (record->by_peer && record->rules.mode == KU_ONCE && !record->allowed) {
        forbid_renegotiation(ssl);
    }
    record->by_peer = 0;
    record->events |= KU_RENEGOTIATED;
}

static void
renegotiation_refused(struct ku_record *record, SSL *ssl)
{
    count(record, KU_REFUSALS);
    record->renegotiates = 0;
    if (record->by_peer) {
        record->by_peer = 0; /* it has been counted when it began */
    }
    else {
        peer_renegotiates(record, ssl);
    }
    if (record->why_cut == NULL) {
        record->events |= KU_REFUSED_PEER; /* a cut says more */
    }
}

/* The info callback.  OpenSSL calls it inside SSL_read() and the like, without the
   GIL.  (1.1.1 and 1.1.1a have handshakes begin and end around a KeyUpdate.) */
static void
happened(const SSL *const_ssl, int where, int value)
{
    SSL *ssl = (SSL *)(uintptr_t)const_ssl;
    struct ku_record *record = ku_record_of(ssl);
    if (record == NULL) {
        return;
    }
    int is_tls13 = libssl.SSL_version(ssl) == TLS1_3_VERSION;
    if (where & SSL_CB_LOOP) {
        if (is_tls13 && record->connected) {
            state_changed(record, ssl);
        }
    }
    else if (where == SSL_CB_WRITE_ALERT && value == NO_RENEGOTIATION_WARNING) {
        renegotiation_refused(record, ssl);
    }
    else if (is_tls13 && record->connected) {
        return;
    }
    else if (where == SSL_CB_HANDSHAKE_START) {
        handshake_began(record, ssl);
    }
    else if (where == SSL_CB_HANDSHAKE_DONE) {
        handshake_done(record, ssl);
    }
}

/* --- beside an SSL --------------------------------------------------------------- */

/* From 3.2 on OpenSSL has freed all else of the SSL by then: nothing of it is
   touched (ssl_lib.c, ossl_ssl_connection_free()). */
static void
free_record(void *parent, void *data, void *ex_data, int index, long number,
            void *pointer)
{
    (void)parent, (void)ex_data, (void)index, (void)number, (void)pointer;
    if (data != NULL) {
        strike_off(data);
        free(data);
    }
}

/* SSL_dup() copies what is beside an SSL, which would be freed twice. */
static int
forget_in_copy(void *to, const void *from, void *data, int index, long number,
               void *pointer)
{
    (void)to, (void)from, (void)index, (void)number, (void)pointer;
    *(void **)data = NULL;
    return 1;
}

int
ku_record_prepare(const struct ku_libssl *functions)
{
    ku_mutex_lock(&everything);
    if (place < 0) {
        libssl = *functions;
        place = libssl.CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL, 0, NULL, NULL,
                                               forget_in_copy, free_record);
        place = place >= 0 && watch_forks() == 0 ? place : -1;
    }
    ku_mutex_unlock(&everything);
    return place < 0 ? -1 : 0;
}

struct ku_record *
ku_record_of(const SSL *ssl)
{
    return libssl.SSL_get_ex_data(ssl, place);
}

struct ku_record *
ku_record_keep(SSL *ssl, const struct ku_rules *rules)
{
    struct ku_record *record = calloc(1, sizeof(*record));
    if (record == NULL) {
        return NULL;
    }
    record->rules = *rules;
    record->fragment = RECORD;
    record->random = (uint64_t)(uintptr_t)record ^ (uint64_t)ku_now();
    record->hard_records = KU_NO_LIMIT;
    record->sent = record->received = (struct ku_keys){
        .most_records = KU_NO_LIMIT, .most_bytes = KU_NO_LIMIT, .most_age = KU_NEVER};
    enlist(record);
    if (!libssl.SSL_set_ex_data(ssl, place, record)) {
        free_record(NULL, record, NULL, 0, 0, NULL);
        return NULL;
    }
    libssl.SSL_set_info_callback(ssl, happened);
    if (rules->mode == KU_NEVER_RENEGOTIATE) {
        forbid_renegotiation(ssl);
    }
    return record;
}

/* OpenSSL 3.0 and later refuse a client's renegotiation without an option of its own
   as well. */
void
ku_record_allow(SSL *ssl, struct ku_record *record, int change)
{
    const uint64_t both = SSL_OP_NO_RENEGOTIATION | SSL_OP_ALLOW_CLIENT_RENEGOTIATION;
    if (change > 0 && record->allowed++ == 0) {
        record->options_before = libssl.SSL_get_options(ssl) & both;
        if (record->why_cut == NULL) {
            (void)libssl.SSL_clear_options(ssl, SSL_OP_NO_RENEGOTIATION);
            (void)libssl.SSL_set_options(ssl, SSL_OP_ALLOW_CLIENT_RENEGOTIATION);
        }
    }
    if (change < 0 && --record->allowed == 0 && record->why_cut == NULL) {
        (void)libssl.SSL_clear_options(ssl, both);
        (void)libssl.SSL_set_options(ssl, record->options_before);
    }
}
