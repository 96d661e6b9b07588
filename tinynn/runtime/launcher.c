/* Enqueues a fixed list of OpenCL kernels: no interpreter between one kernel and the next.

   `enqueue` is clEnqueueNDRangeKernel of the OpenCL library that the process has loaded. events is
   NULL, or receives one event per launch. Returns the first status that is not success, or 0. */
#include <stddef.h>
#include <stdint.h>

struct tinynn_launch {
    void *kernel;
    size_t global_size[3];
    size_t local_size[3];
};

typedef int32_t (*tinynn_enqueue)(void *queue, void *kernel, uint32_t dimensions,
                                  const size_t *offset, const size_t *global_size,
                                  const size_t *local_size, uint32_t waits, const void *wait_list,
                                  void **event);

__attribute__((visibility("default")))
int32_t tinynn_launch_all(tinynn_enqueue enqueue, void *queue, const struct tinynn_launch *launches,
                          int64_t count, void **events) {
    for (int64_t i = 0; i < count; ++i) {
        const struct tinynn_launch *launch = launches + i;
        const int32_t status = enqueue(queue, launch->kernel, 3, NULL, launch->global_size,
                                       launch->local_size, 0, NULL, events ? events + i : NULL);
        if (status != 0)
            return status;
    }
    return 0;
}
