/* The metrics as text (Prometheus text format 0.0.4): for each its help, its type, and a line for
 * each combination of labels. Names, help and words are the program's own constants, without a
 * character that would have to be escaped; a unit test looks. */
#include <inttypes.h>

#include "base/metrics_table.h"

#define PREFIX "spotify_auth_"

/* Which cells a line shows, and how they are called. */
struct row {
    const struct metric_family *family;
    unsigned label; /* of family->labels */
    unsigned across;
    unsigned cell;
};

static void add_label(struct buf *out, const char *key, const char *word)
{
    buf_addf(out, "%c%s=\"%s\"", out->len == 0 ? '{' : ',', key, word);
}

/* "{a="b",le="1"}" or nothing; le only where there is one. */
static void add_labels(struct buf *out, const struct row *row, const char *le)
{
    const struct metric_words *labels = row->family->labels;
    const struct metric_words *across = row->family->across;
    struct buf text = {0};
    if (labels) {
        add_label(&text, labels->key, labels->words[row->label]);
    }
    if (labels && labels->second_key) {
        add_label(&text, labels->second_key, labels->second_words[row->label]);
    }
    if (across) {
        add_label(&text, across->key, across->words[row->across]);
    }
    if (le) {
        add_label(&text, "le", le);
    }
    if (text.len > 0) {
        buf_addc(&text, '}');
    }
    buf_adds(out, buf_str(&text));
    buf_clear(&text);
}

static void begin_line(struct buf *out, const struct row *row, const char *suffix, const char *le)
{
    buf_addf(out, PREFIX "%s%s", row->family->name, suffix);
    add_labels(out, row, le);
    buf_addc(out, ' ');
}

static double in_units(const struct metric_family *family, uint64_t value)
{
    return (double)value / (double)family->per_unit;
}

/* Buckets are shown with all that is in the smaller ones, and the count is that of the last: so the
 * lines agree with each other, whatever is being counted meanwhile. */
static void add_histogram(struct buf *out, const struct row *row)
{
    const struct metric_family *family = row->family;
    struct buf le = {0};
    uint64_t count = 0;
    for (unsigned i = 0; i <= METRIC_BOUNDS; i++) {
        buf_reset(&le);
        if (i < METRIC_BOUNDS) {
            buf_addf(&le, "%.10g", in_units(family, family->bounds[i]));
        } else {
            buf_adds(&le, "+Inf");
        }
        count += metrics_sum(row->cell + i);
        begin_line(out, row, "_bucket", buf_str(&le));
        buf_addf(out, "%" PRIu64 "\n", count);
    }
    begin_line(out, row, "_sum", NULL);
    buf_addf(out, "%.6f\n", in_units(family, metrics_sum(row->cell + METRIC_BOUNDS + 1)));
    begin_line(out, row, "_count", NULL);
    buf_addf(out, "%" PRIu64 "\n", count);
    buf_clear(&le);
}

static void add_row(struct buf *out, const struct row *row)
{
    uint64_t sum;
    switch (row->family->type) {
    case METRIC_IS_HISTOGRAM:
        add_histogram(out, row);
        break;
    case METRIC_IS_COUNTER:
        sum = metrics_sum(row->cell);
        if (sum > 0 || !row->family->is_sparse) {
            begin_line(out, row, "", NULL);
            buf_addf(out, "%" PRIu64 "\n", sum);
        }
        break;
    case METRIC_IS_GAUGE:
        begin_line(out, row, "", NULL);
        buf_addf(out, "%" PRId64 "\n", (int64_t)metrics_sum(row->cell));
        break;
    }
}

static const char *type_word(enum metric_type type)
{
    switch (type) {
    case METRIC_IS_COUNTER:
        return "counter";
    case METRIC_IS_HISTOGRAM:
        return "histogram";
    case METRIC_IS_GAUGE:
        break;
    }
    return "gauge";
}

static void add_family(struct buf *out, const struct metric_family *family)
{
    struct row row = {.family = family, .cell = family->metric};
    unsigned columns = family->across ? family->across->count : 1;
    unsigned end = family->metric + metric_cells(family);
    buf_addf(out, "# HELP " PREFIX "%s %s\n", family->name, family->help);
    buf_addf(out, "# TYPE " PREFIX "%s %s\n", family->name, type_word(family->type));
    for (unsigned i = 0; row.cell < end; i++) {
        row.label = i / columns;
        row.across = i % columns;
        add_row(out, &row);
        row.cell += metric_width(family);
    }
}

void metrics_format(struct buf *out)
{
    for (unsigned i = 0; i < metric_family_count; i++) {
        add_family(out, &metric_families[i]);
    }
}
