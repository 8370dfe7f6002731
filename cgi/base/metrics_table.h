/* What metrics.c, metrics_table.c and metrics_text.c share. Nobody else includes it. */
#ifndef BASE_METRICS_TABLE_H
#define BASE_METRICS_TABLE_H

#include "base/metrics.h"

enum metric_type { METRIC_IS_COUNTER, METRIC_IS_GAUGE, METRIC_IS_HISTOGRAM };

/* The values of a label, by their enum. */
struct metric_words {
    const char *key;
    const char *const *words;
    unsigned count;
    const char *second_key;          /* NULL, or a second label, */
    const char *const *second_words; /* which follows from the first */
};

struct metric_family {
    enum metric metric;
    enum metric_type type;
    const char *name; /* without the prefix */
    const char *help;
    const struct metric_words *labels; /* NULL: one cell */
    const struct metric_words *across; /* NULL, or a second label: all combinations */
    const uint64_t *bounds;            /* histograms: METRIC_BOUNDS of them, rising */
    uint64_t per_unit;                 /* histograms: 1000000 where cells count microseconds */
    bool is_sparse;                    /* combinations that never happened are left out */
};

/* Bounds of histograms, in the unit of their cells. */
extern const uint64_t metric_request_us[METRIC_BOUNDS];
extern const uint64_t metric_redis_us[METRIC_BOUNDS];
extern const uint64_t metric_call_us[METRIC_BOUNDS];
extern const uint64_t metric_reauth_s[METRIC_BOUNDS];

/* In the order of their cells. */
extern const struct metric_family metric_families[];
extern const unsigned metric_family_count;

const struct metric_family *metric_find(enum metric metric);

/* The value with this word; 0 where there is none. */
unsigned metric_find_word(const struct metric_words *words, const char *word);

/* How many cells, and how many of them for one combination of labels. */
unsigned metric_width(const struct metric_family *family);
unsigned metric_cells(const struct metric_family *family);

/* A cell over all slots. */
uint64_t metrics_sum(unsigned cell);

#endif
