/* JSON from strangers: what is taken is one object of bounded depth, and any text that is written
 * reads back as itself. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

static int depth_of(const json_t *value)
{
    int deepest = 0;
    void *at;
    for (at = json_object_iter((json_t *)value); at;
         at = json_object_iter_next((json_t *)value, at)) {
        int depth = depth_of(json_object_iter_value(at));
        deepest = depth > deepest ? depth : deepest;
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        int depth = depth_of(json_array_get(value, i));
        deepest = depth > deepest ? depth : deepest;
    }
    return json_is_object(value) || json_is_array(value) ? deepest + 1 : 0;
}

static void read_foreign(const char *text, size_t len)
{
    json_t *root = json_parse_object(text, len, 4096);
    if (!root) {
        return;
    }
    if (len > 4096 || !json_is_object(root) || depth_of(root) > JSON_DEPTH_MAX) {
        abort();
    }
    json_get_string(root, "access_token");
    json_get_integer(root, "expires_in", 3600);
    json_decref(root);
}

static void write_and_read_back(const char *text)
{
    struct buf out = {0};
    struct json_writer writer;
    json_open(&writer, &out);
    json_add_string(&writer, "text", text);
    json_close(&writer);
    for (size_t i = 0; i < out.len; i++) {
        unsigned char c = (unsigned char)out.data[i];
        if (c < 0x20 || c == 0x7F || c == '<' || c == '>' || c == '&') {
            abort();
        }
    }

    json_t *root = json_parse_object(out.data, out.len, out.len);
    const char *back = json_get_string(root, "text");
    json_t *valid = json_string(text); /* NULL unless text is UTF-8 */
    if (!back || (valid && strcmp(back, text) != 0)) {
        abort();
    }
    json_decref(valid);
    json_decref(root);
    buf_clear(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_foreign((const char *)data, size);
    char *text = xcalloc(size + 1, 1);
    if (size > 0) {
        memcpy(text, data, size);
    }
    write_and_read_back(text);
    free(text);
    return 0;
}
