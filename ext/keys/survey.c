#include "keys/survey.h"

#include "keys/key_clock.h"
#include "keys/ledgers.h"

#define KU_BOUND(bound) (bound),
static const uint64_t age_bounds[] = {KU_AGE_BOUNDS(KU_BOUND)};
static const uint64_t record_bounds[] = {KU_RECORD_BOUNDS(KU_BOUND)};
#undef KU_BOUND

/* The first bucket whose bound is not below `value`. */
static int
bucket_of(uint64_t value, const uint64_t *bounds, int count)
{
    int bucket = 0;
    while (bucket < count && value > bounds[bucket]) {
        bucket++;
    }
    return bucket;
}

static void
add_keys(struct ku_key_survey *survey, const struct ku_keys *keys, ku_time now)
{
    ku_time age = now > keys->since ? now - keys->since : 0; /* changed just now */
    survey->oldest = age > survey->oldest ? age : survey->oldest;
    uint64_t seconds = ((uint64_t)age + 999999) / 1000000;
    survey->ages[bucket_of(seconds, age_bounds, KU_AGE_BUCKETS - 1)]++;
    survey->records[bucket_of(keys->records, record_bounds, KU_RECORD_BUCKETS - 1)]++;
}

static void
add_connection(void *argument, const struct ku_view *view)
{
    struct ku_survey *survey = argument;
    if (view->connected) {
        add_keys(&survey->sent, &view->sent, survey->now);
        add_keys(&survey->received, &view->received, survey->now);
    }
}

void
ku_survey(struct ku_survey *survey)
{
    *survey = (struct ku_survey){
        .now = ku_key_clock(), .sent.oldest = KU_NEVER, .received.oldest = KU_NEVER};
    ku_ledgers_view(add_connection, survey);
}
