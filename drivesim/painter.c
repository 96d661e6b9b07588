// Paints one view of the world: ground, sky, then textured rectangles, far to near; then the lens.
//
// Frame of reference: x forward, y right, z down, origin in the camera, metres. A pixel (u, v) looks
// along view->ray * (u, v, 1). Ground is a function of forward distance, so the forward distance at
// which a ray meets it depends on its slope alone and is looked up. Colours are RGB, 0 to 255.
#include <stdint.h>

typedef struct {
    int32_t width, height;
    float ray[9];      // pixel -> direction, rows x y z
    float pixel[9];    // direction -> pixel, homogeneous
    float per_pixel;   // radians a pixel sees
} View;

typedef struct {       // every table's first entry is at forward distance or station 0 of the table
    float camera_height;
    float slope_end;   // slope of the last ray that meets ground
    float far;         // m
    const float *hit;  // forward distance over 1 / (slope - slope_end + camera_height / far)
    int32_t hits;
    float hit_step;
    const float *road; // (roads, 5): y of the centreline, station, sin, cos of heading, curvature
    int32_t roads;
    float road_step;
    const float *ribbon; // (ribbons, stations, 2): offset and half width, m
    const float *paint;  // (ribbons, 8): r g b, opacity, dash, period, phase (m), wear
    int32_t ribbons, stations;
    float first_station, station_step;
} Ground;

typedef struct {
    float haze[3], zenith[3], sun[3], grass[3];
    float sun_power, cloud, haze_distance, ambient, headlight, texture;
    float gain, noise, vignette, glare, veil;
    float north, east; // cosine and sine of the car's heading
    uint32_t seed;
} Light;

typedef struct {
    float corner[3], right[3], down[3]; // the top left corner and the two sides, m
    float tint[3];
    float alpha;
    float glows;     // 1: shines by itself
    int32_t texture;
} Quad;

typedef struct { int32_t start, side, levels; } Texture; // square, RGBA, halved level after level

enum { NOISE = 256 };
#define EXPORT __attribute__((visibility("default")))

static inline float clamp(float x, float low, float high) { return x < low ? low : x > high ? high : x; }
static inline float least(float a, float b) { return a < b ? a : b; }
static inline float floor_of(float x) { return __builtin_floorf(x); }
static inline float root(float x) { return __builtin_sqrtf(x); }

static inline float haze_share(float distance, const Light *light) { // about 1 - exp(-distance / D)
    float k = distance / light->haze_distance;
    return 1 - 1 / (1 + k * (1 + k * (0.5f + k * (1.f / 6))));
}

static inline float noise_at(const float *noise, float row, float column) {
    float r = floor_of(row), c = floor_of(column), fr = row - r, fc = column - c;
    int r0 = (int)r & (NOISE - 1), c0 = (int)c & (NOISE - 1);
    int r1 = (r0 + 1) & (NOISE - 1), c1 = (c0 + 1) & (NOISE - 1);
    float top = noise[r0 * NOISE + c0] * (1 - fc) + noise[r0 * NOISE + c1] * fc;
    float bottom = noise[r1 * NOISE + c0] * (1 - fc) + noise[r1 * NOISE + c1] * fc;
    return top * (1 - fr) + bottom * fr;
}

// Daylight, or what headlights throw on something at (x, y).
static inline float lit(float x, float y, const Light *light) {
    if (light->headlight == 0) return light->ambient;
    float spread = y / (2.5f + 0.25f * x), reach = x / 28;
    float beam = 1 + spread * spread;
    return light->ambient + light->headlight / (beam * beam * (1 + reach * reach * reach));
}

static inline float painted_until(float s, float dash, float period) {
    float whole = floor_of(s / period);
    return whole * dash + least(s - whole * period, dash);
}

// A stretch of a row, a value per pixel; loops over its pixels become vector instructions. Before
// loops whose tables a compiler cannot tell from what they write: no turn depends on another.
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
enum { STRIP = 64 };
typedef struct {
    float x[STRIP], y[STRIP];              // where the ray meets the ground, m
    float across[STRIP], station[STRIP];   // the same on the road
    float index[STRIP];                    // into the ribbons' tables
    float length[STRIP], foot[STRIP];      // of the pixel's footprint along and across the road
    float fine[STRIP], tone[STRIP], wear[STRIP];
    float red[STRIP], green[STRIP], blue[STRIP];
} Strip;

// Fills everything but x and y; colours are those of the grass.
static void ground_beside(Strip *s, int n, const View *view, const Ground *ground,
                          const Light *light, const float *noise) {
    INDEPENDENT
    for (int i = 0; i < n; i++) {
        float x = s->x[i], y = s->y[i];
        float place = least(x / ground->road_step, ground->roads - 1.01f);
        int cell = (int)place;
        float part = place - cell, at[5];
        const float *row = ground->road + 5 * cell;
        for (int j = 0; j < 5; j++) at[j] = row[j] + part * (row[j + 5] - row[j]);
        // From the centreline straight across, the nearest point follows to second order.
        float gap = y - at[0], ahead = gap * at[2], aside = gap * at[3];
        float stretch = clamp(1 - at[4] * aside, 0.3f, 3);
        float station = at[1] + ahead / stretch;
        s->station[i] = station;
        s->across[i] = aside - 0.5f * at[4] * ahead * ahead / stretch;

        float distance = root(x * x + y * y);
        float wide = distance * view->per_pixel;
        float length = wide * least(distance / ground->camera_height, 60);
        float slant = at[2] - at[3] * y / x;
        s->length[i] = length;
        s->foot[i] = wide + (slant < 0 ? -slant : slant) * length;

        float fine = noise_at(noise, station * 3, s->across[i] * 6) / (1 + 3 * length);
        float coarse = noise_at(noise, station * 0.11f + 31, s->across[i] * 0.6f + 7)
                     / (1 + 0.1f * length);
        float tone = 1 + light->texture * (fine + 1.5f * coarse);
        s->tone[i] = tone;
        s->wear[i] = 0.7f + 0.8f * fine + 0.8f * coarse;
        s->red[i] = light->grass[0] * (tone + 0.5f * (tone - 1));
        s->green[i] = light->grass[1] * (tone + 0.5f * (tone - 1));
        s->blue[i] = light->grass[2] * (tone + 0.5f * (tone - 1));
        s->index[i] = clamp((station - ground->first_station) / ground->station_step, 0,
                            ground->stations - 1.01f);
    }
}

// How much of each pixel ribbon k covers, before its dashes, into `share`; 0 if it is not here.
static int ribbon_share(const Strip *s, int n, const Ground *ground, int k, float *share) {
    const float *ribbon = ground->ribbon + 2 * k * ground->stations;
    const float opacity = ground->paint[8 * k + 3];
    int seen = 0;
    for (int i = 0; i < n; i++) {
        int near = (int)s->index[i];
        float rest = s->index[i] - near;
        const float *r = ribbon + 2 * near;
        float half = r[1] + rest * (r[3] - r[1]);
        float away = s->across[i] - (r[0] + rest * (r[2] - r[0]));
        float foot = s->foot[i];
        float low = away - 0.5f * foot, high = away + 0.5f * foot;
        float covered = opacity * ((high > half ? half : high) - (low < -half ? -half : low)) / foot;
        int here = half > 0 && low < half && high > -half;
        share[i] = here ? covered : 0;
        seen |= here;
    }
    return seen;
}

static void paint_ribbons(Strip *s, int n, const Ground *ground) {
    float share[STRIP];
    for (int k = 0; k < ground->ribbons; k++) {
        if (!ribbon_share(s, n, ground, k, share)) continue;
        const float *p = ground->paint + 8 * k;
        const float dash = p[4], period = p[5], phase = p[6], worn = p[7];
        if (period > 0)
            for (int i = 0; i < n; i++) {
                float length = s->length[i], from = s->station[i] - phase - 0.5f * length;
                share[i] *= clamp((painted_until(from + length, dash, period) -
                                   painted_until(from, dash, period)) / length, 0, 1);
            }
        for (int i = 0; i < n; i++) {
            float part = share[i] * clamp(1 - worn * s->wear[i], 0, 1);
            s->red[i] += part * (p[0] * s->tone[i] - s->red[i]);
            s->green[i] += part * (p[1] * s->tone[i] - s->green[i]);
            s->blue[i] += part * (p[2] * s->tone[i] - s->blue[i]);
        }
    }
}

// Light and haze over the strip's colours.
static void light_ground(Strip *s, int n, const Light *light) {
    for (int i = 0; i < n; i++) {
        float x = s->x[i], y = s->y[i];
        float shine = lit(x, y, light), fog = haze_share(root(x * x + y * y), light);
        s->red[i] = s->red[i] * shine * (1 - fog) + light->haze[0] * fog;
        s->green[i] = s->green[i] * shine * (1 - fog) + light->haze[1] * fog;
        s->blue[i] = s->blue[i] * shine * (1 - fog) + light->haze[2] * fog;
    }
}

// x and y of the strip are the direction, down its part along z.
static void paint_sky(Strip *s, const float *down, int n, const Light *light, const float *noise) {
    for (int i = 0; i < n; i++) {
        float x = s->x[i], y = s->y[i], z = down[i];
        float flat = root(x * x + y * y);
        float length = root(flat * flat + z * z);
        float up = -z / flat;
        float north = (x * light->north - y * light->east) / flat;
        float east = (x * light->east + y * light->north) / flat;
        float height = root(clamp(up * 1.4f, 0, 1));
        float towards = (x * light->sun[0] + y * light->sun[1] + z * light->sun[2]) / length;
        float glow = light->sun_power / (1 + 400 * (1 - towards));
        float plane = 14 / (clamp(up, 0, 9) + 0.09f);
        float cover = noise_at(noise, plane * north, plane * east)
                    + 0.5f * noise_at(noise, 2.7f * plane * north, 2.7f * plane * east);
        cover = light->cloud * clamp(0.5f + 0.6f * cover, 0, 1) * clamp(up * 9, 0, 1);
        float hill = 0.012f + 0.010f * noise_at(noise, 40 * north + 90, 40 * east + 50)
                   + 0.003f * noise_at(noise, 300 * north, 300 * east);
        float inside = clamp((hill - up) * 400, 0, 1);
        float colour[3];
        for (int j = 0; j < 3; j++) {
            float clear = light->haze[j] + (light->zenith[j] - light->haze[j]) * height + 255 * glow;
            float white = 1.04f * light->haze[j];
            float sky = clear + (white - clear) * cover;
            colour[j] = sky + (0.82f * light->haze[j] - sky) * inside;
        }
        s->red[i] = colour[0], s->green[i] = colour[1], s->blue[i] = colour[2];
    }
}

// Pixels u to u + n of row v.
static void paint_strip(int u, int v, int n, const View *view, const Ground *ground,
                        const Light *light, const float *noise, float *picture, float *depth) {
    float offset = ground->camera_height / ground->far - ground->slope_end;
    float ahead[STRIP], aside[STRIP], down[STRIP], slope[STRIP];
    const float *m = view->ray;
    int lands = 0; // pixels that see ground
    for (int i = 0; i < n; i++) {
        ahead[i] = m[0] * (u + i) + m[1] * v + m[2];
        aside[i] = m[3] * (u + i) + m[4] * v + m[5];
        down[i] = m[6] * (u + i) + m[7] * v + m[8];
        slope[i] = down[i] / ahead[i];
        lands += slope[i] > ground->slope_end;
    }
    Strip sky, land;
    if (lands < n) {
        for (int i = 0; i < n; i++) sky.x[i] = ahead[i], sky.y[i] = aside[i];
        paint_sky(&sky, down, n, light, noise);
    }
    if (lands) {
        INDEPENDENT
        for (int i = 0; i < n; i++) {
            float steep = slope[i] > ground->slope_end ? slope[i] : ground->slope_end;
            float place = least(1 / ((steep + offset) * ground->hit_step), ground->hits - 1.01f);
            int cell = (int)place;
            land.x[i] = ground->hit[cell] + (place - cell) * (ground->hit[cell + 1] - ground->hit[cell]);
            land.y[i] = land.x[i] * aside[i] / ahead[i];
        }
        ground_beside(&land, n, view, ground, light, noise);
        paint_ribbons(&land, n, ground);
        light_ground(&land, n, light);
    }
    for (int i = 0; i < n; i++) {
        int ground_here = slope[i] > ground->slope_end;
        const Strip *s = ground_here ? &land : &sky;
        float *colour = picture + 3 * (v * view->width + u + i);
        colour[0] = s->red[i], colour[1] = s->green[i], colour[2] = s->blue[i];
        depth[v * view->width + u + i] = ground_here ? land.x[i] : 1e9f;
    }
}

// picture: (height, width, 3). depth: (height, width) forward distance of the ground, m.
EXPORT void paint_ground(const View *view, const Ground *ground, const Light *light, const float *noise,
                  float *picture, float *depth) {
    for (int v = 0; v < view->height; v++)
        for (int u = 0; u < view->width; u += STRIP) {
            int n = view->width - u < STRIP ? view->width - u : STRIP;
            paint_strip(u, v, n, view, ground, light, noise, picture, depth);
        }
}

// Rows of the inverse of the matrix with columns a, b, c; 0 if it has none.
static int inverse(const float *a, const float *b, const float *c, float *out) {
    for (int i = 0; i < 3; i++) {
        int j = (i + 1) % 3, k = (i + 2) % 3;
        out[i] = b[j] * c[k] - b[k] * c[j];
        out[3 + i] = c[j] * a[k] - c[k] * a[j];
        out[6 + i] = a[j] * b[k] - a[k] * b[j];
    }
    float det = a[0] * out[0] + a[1] * out[1] + a[2] * out[2];
    if (det > -1e-9f && det < 1e-9f) return 0;
    for (int i = 0; i < 9; i++) out[i] /= det;
    return 1;
}

// The pixels a quad may touch: columns box[0] to box[1], rows box[2] to box[3]; 0 if none.
static int bounds(const View *view, const Quad *quad, float *box) {
    float corner[4][3], nearest = 0.5f;
    box[0] = box[2] = 1e9f, box[1] = box[3] = -1e9f;
    for (int k = 0; k < 4; k++)
        for (int i = 0; i < 3; i++)
            corner[k][i] = quad->corner[i] + (k == 1 || k == 2) * quad->right[i] + (k >= 2) * quad->down[i];
    for (int k = 0; k < 4; k++) {
        const float *a = corner[k], *b = corner[(k + 1) % 4];
        for (int end = 0; end < 2; end++) { // where the side begins, and where it passes the plane
            float t = 0;
            if (end) {
                if ((a[0] < nearest) == (b[0] < nearest)) continue;
                t = (nearest - a[0]) / (b[0] - a[0]);
            } else if (a[0] < nearest) continue;
            float p[3], at[3];
            for (int i = 0; i < 3; i++) p[i] = a[i] + t * (b[i] - a[i]);
            for (int i = 0; i < 3; i++)
                at[i] = view->pixel[3 * i] * p[0] + view->pixel[3 * i + 1] * p[1] + view->pixel[3 * i + 2] * p[2];
            float u = at[0] / at[2], v = at[1] / at[2];
            if (u < box[0]) box[0] = u;
            if (u > box[1]) box[1] = u;
            if (v < box[2]) box[2] = v;
            if (v > box[3]) box[3] = v;
        }
    }
    box[0] = clamp(floor_of(box[0]), 0, view->width), box[1] = clamp(floor_of(box[1]) + 1, -1, view->width - 1);
    box[2] = clamp(floor_of(box[2]), 0, view->height), box[3] = clamp(floor_of(box[3]) + 1, -1, view->height - 1);
    return box[0] <= box[1] && box[2] <= box[3];
}

static void texel(const uint8_t *atlas, const Texture *texture, int level, float u, float v, float *out) {
    int side = texture->side >> level, start = texture->start;
    for (int i = 0; i < level; i++) start += 4 * (texture->side >> i) * (texture->side >> i);
    float x = clamp(u * side - 0.5f, 0, side - 1.001f), y = clamp(v * side - 0.5f, 0, side - 1.001f);
    int x0 = (int)x, y0 = (int)y;
    float fx = x - x0, fy = y - y0;
    const uint8_t *p = atlas + start + 4 * (y0 * side + x0);
    int right = side > 1 ? 4 : 0, down = side > 1 ? 4 * side : 0;
    for (int i = 0; i < 4; i++)
        out[i] = (p[i] * (1 - fx) + p[right + i] * fx) * (1 - fy)
               + (p[down + i] * (1 - fx) + p[down + right + i] * fx) * fy;
}

// Textures have premultiplied colours. Quads come far to near.
EXPORT void paint_quads(const View *view, const Quad *quads, int32_t count, const uint8_t *atlas,
                 const Texture *textures, const Light *light, float *picture, const float *depth) {
    for (int q = 0; q < count; q++) {
        const Quad *quad = quads + q;
        float box[4], plane[9], to[9];
        if (!inverse(quad->right, quad->down, quad->corner, plane) || !bounds(view, quad, box)) continue;
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 3; j++)
                to[3 * i + j] = plane[3 * i] * view->ray[j] + plane[3 * i + 1] * view->ray[3 + j]
                              + plane[3 * i + 2] * view->ray[6 + j];
        const Texture *texture = textures + quad->texture;
        float size = box[3] - box[2] > box[1] - box[0] ? box[3] - box[2] : box[1] - box[0];
        int level = 0;
        while (level + 1 < texture->levels && (texture->side >> level) > 1.5f * size) level++;
        for (int v = (int)box[2]; v <= (int)box[3]; v++)
            for (int u = (int)box[0]; u <= (int)box[1]; u++) {
                float w = to[6] * u + to[7] * v + to[8];
                if (w <= 0) continue;
                float across = (to[0] * u + to[1] * v + to[2]) / w;
                float below = (to[3] * u + to[4] * v + to[5]) / w;
                if (across < 0 || across > 1 || below < 0 || below > 1) continue;
                float x = (view->ray[0] * u + view->ray[1] * v + view->ray[2]) / w;
                int pixel = v * view->width + u;
                if (x > depth[pixel] * 1.03f + 2) continue; // behind a crest
                float y = (view->ray[3] * u + view->ray[4] * v + view->ray[5]) / w;
                float colour[4];
                texel(atlas, texture, level, across, below, colour);
                float cover = quad->alpha * colour[3] / 255;
                float shine = quad->glows ? 1 : lit(x, y, light), fog = haze_share(x, light);
                for (int i = 0; i < 3; i++) {
                    float own = quad->alpha * colour[i] * quad->tint[i] * shine;
                    float seen = own * (1 - fog) + cover * light->haze[i] * fog;
                    picture[3 * pixel + i] = picture[3 * pixel + i] * (1 - cover) + seen;
                }
            }
    }
}

static inline float random_of(uint32_t *state) { // xorshift; about normal as a sum of four bytes
    uint32_t x = *state;
    x ^= x << 13, x ^= x >> 17, x ^= x << 5;
    *state = x;
    return ((int)((x & 255) + (x >> 8 & 255) + (x >> 16 & 255) + (x >> 24)) - 510) * (1.f / 148);
}

static inline float dirt_at(const float *smear, int columns, float row, float column) {
    int r = (int)row, c = (int)column, next = c + 1 < columns;
    float fr = row - r, fc = column - c;
    const float *p = smear + r * columns + c, *below = p + columns;
    return (p[0] * (1 - fc) + p[next] * fc) * (1 - fr) + (below[0] * (1 - fc) + below[next] * fc) * fr;
}

// The lens and the sensor: glare, veil, vignette, exposure, noise. Then BT.601 in video range.
// smear: (height / 8 + 1, width / 8) dirt or drops, 0 to 1. luma (height, width), chroma (2, half, half).
EXPORT void develop(const View *view, const Light *light, const float *smear, const float *picture,
             uint8_t *luma, uint8_t *chroma) {
    uint32_t state = light->seed * 2654435761u + 12345;
    int w = view->width, h = view->height;
    float sun[3];
    for (int i = 0; i < 3; i++)
        sun[i] = view->pixel[3 * i] * light->sun[0] + view->pixel[3 * i + 1] * light->sun[1]
               + view->pixel[3 * i + 2] * light->sun[2];
    for (int v = 0; v < h; v += 2)
        for (int u = 0; u < w; u += 2) {
            float mean[3] = {0, 0, 0};
            float dx = (u - 0.5f * w) / w, dy = (v - 0.5f * h) / w;
            float gain = light->gain * (1 - light->vignette * (dx * dx + dy * dy));
            float veil = light->veil;
            if (light->glare > 0 && sun[2] > 0) {
                float sx = u - sun[0] / sun[2], sy = v - sun[1] / sun[2];
                veil += light->glare / (1 + 16 * (sx * sx + sy * sy) / (w * (float)w));
            }
            float dirt = dirt_at(smear, w / 8, v * 0.125f, u * 0.125f);
            for (int k = 0; k < 4; k++) {
                int at = (v + (k >> 1)) * w + u + (k & 1);
                float rgb[3], grain = light->noise * random_of(&state);
                for (int i = 0; i < 3; i++) {
                    float clear = picture[3 * at + i] * gain;
                    clear += dirt * (0.55f * light->haze[i] * gain - clear) + 255 * veil + grain;
                    rgb[i] = clamp(clear, 0, 255);
                    mean[i] += 0.25f * rgb[i];
                }
                luma[at] = (uint8_t)(16.5f + 0.25679f * rgb[0] + 0.50413f * rgb[1] + 0.09791f * rgb[2]);
            }
            int half = (v / 2) * (w / 2) + u / 2;
            chroma[half] = (uint8_t)(128.5f - 0.14822f * mean[0] - 0.29099f * mean[1] + 0.43922f * mean[2]);
            chroma[half + (h / 2) * (w / 2)] =
                (uint8_t)(128.5f + 0.43922f * mean[0] - 0.36779f * mean[1] - 0.07143f * mean[2]);
        }
}
