/* Answers of a server to `hookgate send`: the parser stays within its buffer, and an answer that
 * comes in two pieces is the same as in one. The first byte says where it is cut. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "answer.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

/* Feeds the first `cut` bytes, then all. */
static enum answer_state feed(const unsigned char *data, size_t size, size_t cut,
                              struct answer *answer, char *buf)
{
    size_t len = cut;
    memcpy(buf, data, cut);
    enum answer_state state = answer_feed(answer, buf, &len, false);
    assert(len <= cut);
    if (state != ANSWER_MORE)
        return state;
    memcpy(buf + len, data + cut, size - cut);
    size_t before = len += size - cut;
    state = answer_feed(answer, buf, &len, true);
    assert(len <= before);
    return state;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    if (size < 2)
        return 0;
    size_t cut = (size_t)data[0] * (size - 1) / 255;
    data++;
    size--;
    char *one = xmalloc(size), *two = xmalloc(size);
    struct answer whole = {0}, pieces = {0};
    enum answer_state state = feed(data, size, 0, &whole, one);
    enum answer_state other = feed(data, size, cut, &pieces, two);
    if (state == ANSWER_WHOLE)
        assert(whole.head_len + whole.body_len <= size && whole.status >= 200);
    /* Framed by the end of the connection, an answer may be whole only with all of its bytes. */
    if (state == ANSWER_WHOLE && other == ANSWER_WHOLE) {
        assert(whole.status == pieces.status && whole.body_len == pieces.body_len);
        assert(memcmp(answer_body(&whole, one).ptr, answer_body(&pieces, two).ptr,
                      whole.body_len) == 0);
    }
    assert((state == ANSWER_BAD) == (other == ANSWER_BAD));
    free(one);
    free(two);
    return 0;
}
