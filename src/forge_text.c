/* The texts behind forge_text.h. A place keeps the shape of the sample's value (a UUID stays one,
 * base64 stays base64, "evt_" stays in front) and is made longer where the shape has too little
 * room for values that never repeat. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "forge_text.h"

#include "rfc3339.h"

#include <stdio.h>

#define MARK_CHAR '\x7f'
#define NUMBER_DIGITS 15 /* below 2^53, so that no reader loses digits */
#define ID_BITS_MIN 64
#define ID_MAX 256

enum class { STAYS, DIGIT, LOWER, UPPER, HEX, HEX_UPPER, BASE64, BASE64_2, BASE64_4, CLASS_COUNT };

/* BASE64_2 and _4: the last character before "==" and "=", whose low bits must be 0. */
static const struct {
    const char *alphabet;
    unsigned size, bits;
} classes[CLASS_COUNT] = {
    [STAYS] = {"", 0, 0},
    [DIGIT] = {"0123456789", 10, 3},
    [LOWER] = {"abcdefghijklmnopqrstuvwxyz", 26, 4},
    [UPPER] = {"ABCDEFGHIJKLMNOPQRSTUVWXYZ", 26, 4},
    [HEX] = {"0123456789abcdef", 16, 4},
    [HEX_UPPER] = {"0123456789ABCDEF", 16, 4},
    [BASE64] = {"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", 64, 6},
    [BASE64_2] = {"AQgw", 4, 2},
    [BASE64_4] = {"AEIMQUYcgkosw048", 16, 4},
};

static bool is_in(char c, enum class class)
{
    return c != '\0' && strchr(classes[class].alphabet, c) != NULL;
}

static bool all_in(struct slice s, enum class class, char also)
{
    for (size_t i = 0; i < s.len; i++) {
        if (!is_in(s.ptr[i], class) && s.ptr[i] != also)
            return false;
    }
    return s.len > 0;
}

static bool is_base64(struct slice s)
{
    if (s.len < 16 || s.len % 4 != 0 || s.ptr[s.len - 1] != '=')
        return false;
    struct slice digits = {s.ptr, s.len - (s.ptr[s.len - 2] == '=' ? 2 : 1)};
    return all_in(digits, BASE64, 'A');
}

static bool is_uuid(struct slice s)
{
    return s.len == 36 && s.ptr[8] == '-' && s.ptr[13] == '-' && s.ptr[18] == '-' &&
           s.ptr[23] == '-' && (all_in(s, HEX, '-') || all_in(s, HEX_UPPER, '-'));
}

/* Length of a prefix like "evt_" that tells the kind of id. */
static size_t prefix_len(struct slice s)
{
    for (size_t i = 0; i < s.len && i < 9; i++) {
        if (s.ptr[i] == '_')
            return i + 1;
        if (!is_in(s.ptr[i], LOWER))
            return 0;
    }
    return 0;
}

static enum class class_of(char c) {
    return is_in(c, DIGIT)   ? DIGIT
           : is_in(c, LOWER) ? LOWER
           : is_in(c, UPPER) ? UPPER
                             : STAYS;
}

static void classify(struct slice s, char *ret_classes)
{
    if (is_base64(s)) {
        size_t pads = s.ptr[s.len - 2] == '=' ? 2 : 1;
        memset(ret_classes, BASE64, s.len);
        memset(ret_classes + s.len - pads, STAYS, pads);
        ret_classes[s.len - pads - 1] = pads == 2 ? BASE64_2 : BASE64_4;
        return;
    }
    bool uuid = is_uuid(s);
    bool hex = uuid || (s.len >= 16 && all_in(s, HEX, '-'));
    bool hex_upper = s.len >= 16 && !hex && all_in(s, HEX_UPPER, '-');
    enum class all = uuid && all_in(s, HEX_UPPER, '-') ? HEX_UPPER
                     : hex                             ? HEX
                     : hex_upper                       ? HEX_UPPER
                                                       : STAYS;
    size_t skip = prefix_len(s);
    for (size_t i = 0; i < s.len; i++) {
        bool stays = (all != STAYS && s.ptr[i] == '-') || (uuid && (i == 14 || i == 19)) ||
                     (all == STAYS && i < skip);
        ret_classes[i] = (char)(stays ? STAYS : all != STAYS ? all : class_of(s.ptr[i]));
    }
}

/* Makes place->sample and ->classes of the same length. */
static void shape_id(struct place *place, struct slice sample)
{
    char *text = xcalloc(1, ID_MAX + 32), *kinds = xcalloc(1, ID_MAX + 32);
    memcpy(text, sample.ptr, sample.len);
    classify(sample, kinds);
    unsigned bits = 0;
    for (size_t i = 0; i < sample.len; i++) {
        bits += classes[(unsigned char)kinds[i]].bits;
        /* What JSON or HTTP would escape or refuse. */
        if (text[i] <= ' ' || text[i] == '"' || text[i] == '\\' || text[i] == MARK_CHAR)
            text[i] = '-';
    }
    size_t len = sample.len;
    for (; bits < ID_BITS_MIN; bits += classes[LOWER].bits) {
        text[len] = 'x';
        kinds[len++] = LOWER;
    }
    place->sample = text;
    place->classes = kinds;
    place->len = len;
}

size_t forge_text_mark(struct forge_text *text, enum place_kind kind, enum time_unit unit,
                       struct slice sample, char mark[FORGE_MARK_MAX])
{
    if (text->place_count == FORGE_PLACES_MAX || sample.len > ID_MAX)
        return 0;
    struct place *place = &text->places[text->place_count];
    *place = (struct place){.kind = kind, .unit = unit};
    if (kind == PLACE_ID && all_in(sample, DIGIT, '0'))
        place->kind = kind = PLACE_NUMBER;
    if (kind == PLACE_ID) {
        shape_id(place, sample);
    } else if (kind == PLACE_NUMBER) {
        place->len = sample.len < NUMBER_DIGITS ? NUMBER_DIGITS : sample.len > 18 ? 18 : sample.len;
    } else {
        char scratch[40];
        place->fraction = sample.len > 0 && memchr(sample.ptr, '.', sample.len) != NULL;
        place->len = forge_time_format(unit, place->fraction, 0, scratch, sizeof scratch);
        if (unit != UNIT_RFC3339)
            place->len = unit == UNIT_SECONDS ? 10 : 13; /* until the year 2286 */
    }
    memset(mark, MARK_CHAR, place->len);
    mark[1] = (char)('0' + text->place_count / 10);
    mark[2] = (char)('0' + text->place_count % 10);
    text->place_count++;
    return place->len;
}

void forge_text_pad(struct forge_text *text, size_t at, size_t len)
{
    assert(text->place_count < FORGE_PLACES_MAX && at + len <= text->len);
    text->places[text->place_count++] = (struct place){.kind = PLACE_PADDING, .at = at, .len = len};
}

bool forge_text_bind(struct forge_text *text, char *bytes, size_t len)
{
    text->bytes = bytes;
    text->len = len;
    for (size_t i = 0; i < text->place_count; i++) {
        struct place *place = &text->places[i];
        char needle[] = {MARK_CHAR, (char)('0' + i / 10), (char)('0' + i % 10), MARK_CHAR};
        char *at = memmem(bytes, len, needle, sizeof needle);
        if (at == NULL)
            return false;
        place->at = (size_t)(at - bytes);
        if (place->sample != NULL)
            memcpy(at, place->sample, place->len);
        else
            memset(at, '0', place->len);
    }
    return true;
}

static void fill_number(char *at, size_t len, uint64_t number)
{
    for (size_t i = len; i-- > 0; number /= 10)
        at[i] = (char)('0' + number % 10);
    if (at[0] == '0')
        at[0] = '1'; /* a JSON number has no leading zero */
}

static void fill_id(char *at, const struct place *place, uint64_t *random)
{
    uint64_t bits = 0;
    unsigned left = 0;
    for (size_t i = 0; i < place->len; i++) {
        unsigned class = (unsigned char)place->classes[i];
        if (class == STAYS)
            continue;
        if (left == 0) {
            bits = forge_random(random);
            left = 8;
        }
        at[i] = classes[class].alphabet[(bits & 0xff) * classes[class].size >> 8];
        bits >>= 8;
        left--;
    }
}

size_t forge_time_format(enum time_unit unit, bool fraction, int64_t wall_us, char *buf,
                         size_t size)
{
    if (unit == UNIT_RFC3339) {
        assert(size >= RFC3339_TEXT);
        return rfc3339_format(wall_us, fraction ? 3 : 0, buf);
    }
    return (size_t)snprintf(buf, size, "%lld",
                            (long long)(wall_us / (unit == UNIT_SECONDS ? 1000000 : 1000)));
}

static void fill_time(char *at, const struct place *place, int64_t wall_us)
{
    if (place->unit != UNIT_RFC3339) {
        fill_number(at, place->len,
                    (uint64_t)wall_us / (place->unit == UNIT_SECONDS ? 1000000 : 1000));
        return;
    }
    char buf[40];
    size_t len = forge_time_format(place->unit, place->fraction, wall_us, buf, sizeof buf);
    assert(len == place->len);
    memcpy(at, buf, len);
}

void forge_text_fill(struct forge_text *text, const struct forge_values *values)
{
    uint64_t random = values->random;
    for (size_t i = 0; i < text->place_count; i++) {
        const struct place *place = &text->places[i];
        char *at = text->bytes + place->at;
        switch (place->kind) {
        case PLACE_ID:
            fill_id(at, place, &random);
            break;
        case PLACE_NUMBER:
            fill_number(at, place->len, values->number);
            break;
        case PLACE_TIME:
            fill_time(at, place, values->wall_us);
            break;
        case PLACE_PADDING:
            assert(place->len <= values->padding.len);
            memcpy(at,
                   values->padding.ptr +
                       forge_random(&random) % (values->padding.len - place->len + 1),
                   place->len);
            break;
        }
    }
}

void forge_text_release(struct forge_text *text)
{
    for (size_t i = 0; i < text->place_count; i++) {
        free(text->places[i].classes);
        free(text->places[i].sample);
    }
    free(text->bytes);
    *text = (struct forge_text){0};
}
