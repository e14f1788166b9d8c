#include "keys/opening.h"

#include "keys/ledgers.h"
#include "openssl/sslobject.h"

#include <stdlib.h>

/* OpenSSL passes its callbacks nothing but the SSL.  The functions that they need are
   the same in every interpreter of the process, because all of them share one _ssl. */
static struct ku_libssl libssl;
static int ex_data_index = -1;

/* The free function of the ex_data.  From 3.2 on, OpenSSL has freed everything else of
   the SSL by then, so this function must not touch it (ssl_lib.c,
   ossl_ssl_connection_free()). */
static void
free_ledger(void *parent, void *data, void *ex_data, int index, long number,
            void *pointer)
{
    (void)parent, (void)ex_data, (void)index, (void)number, (void)pointer;
    if (data != NULL) {
        ku_ledgers_remove(data);
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
    ku_ledgers_lock();
    if (ex_data_index < 0) {
        libssl = *functions;
        ex_data_index = libssl.CRYPTO_get_ex_new_index(
            CRYPTO_EX_INDEX_SSL, 0, NULL, NULL, forget_ledger_in_copy, free_ledger);
        ex_data_index =
            ex_data_index >= 0 && ku_ledgers_watch_forks() == 0 ? ex_data_index : -1;
    }
    ku_ledgers_unlock();
    return ex_data_index < 0 ? -1 : 0;
}

struct ku_ledger *
ku_ledger_of(const SSL *ssl)
{
    return libssl.SSL_get_ex_data(ssl, ex_data_index);
}

int
ku_ledger_find(SSL *ssl, struct ku_tls *tls)
{
    *tls = (struct ku_tls){.libssl = &libssl, .ssl = ssl, .ledger = ku_ledger_of(ssl)};
    return tls->ledger != NULL;
}

int
ku_ledger_tls(const ku_state *state, PyObject *sslobj, struct ku_tls *tls)
{
    *tls = (struct ku_tls){.libssl = &state->libssl};
    tls->ssl = ku_sslobject_ssl(state, sslobj);
    tls->ledger = tls->ssl != NULL ? ku_ledger_of(tls->ssl) : NULL;
    return tls->ssl != NULL;
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
    ledger->obstacle = KU_CAUSE_NOT_YET;
    ledger->sent = ledger->received = (struct ku_keys){
        .max_records = KU_NO_LIMIT, .max_bytes = KU_NO_LIMIT, .max_age = KU_NEVER};
    ku_ledgers_add(ledger);
    if (!libssl.SSL_set_ex_data(ssl, ex_data_index, ledger)) {
        free_ledger(NULL, ledger, NULL, 0, 0, NULL);
        return NULL;
    }
    return ledger;
}

void
ku_ledger_share(struct ku_ledger *ledger)
{
    ku_ledgers_lock();
    ledger->is_shared = 1;
    ku_ledgers_unlock();
}

struct ku_facts
ku_ledger_facts(const struct ku_ledger *ledger)
{
    ku_ledgers_lock();
    struct ku_facts facts = ledger->facts;
    ku_ledgers_unlock();
    return facts;
}
