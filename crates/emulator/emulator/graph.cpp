// The entry points of the driver for streams, events, captures and graphs.
//
// A graph is its nodes in the order in which they were added: a node can depend only on what existed before it, and a
// capture adds them in the order of the calls, so this order is always one that the dependencies allow.
#include "driver.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <set>

struct Node {
    Work work;
    size_t index;
};

struct Graph {
    // Shared with executable graphs, so that a node stays a name when its graph is gone.
    std::vector<std::shared_ptr<Node>> nodes;

    Node* add(Work work) {
        nodes.push_back(std::make_shared<Node>(Node{std::move(work), nodes.size()}));
        return nodes.back().get();
    }
};

struct Executable {
    std::vector<std::shared_ptr<Node>> origin;
    std::vector<Work> works;
};

struct Stream {
    Graph* capture = nullptr;
    bool began_capture = false;
};

struct Event {
    std::chrono::steady_clock::time_point time{};
    bool recorded = false;
    // Set if it was recorded in a captured stream: whoever waits for it joins the capture.
    Graph* capture = nullptr;
};

namespace {

Stream default_stream;
std::set<Stream*> streams;

// Null, 1 (legacy) and 2 (per thread) name default streams.
Stream& known(Stream* stream) { return reinterpret_cast<u64>(stream) <= 2 ? default_stream : *stream; }

bool is_captured(const Stream* stream) { return stream->capture; }

Result keep(Graph* graph, void** node, Work work) {
    if (!graph) return INVALID_HANDLE;
    *node = graph->add(std::move(work));
    return SUCCESS;
}

} // namespace

Result waited() {
    const bool capturing = default_stream.capture || std::any_of(streams.begin(), streams.end(), is_captured);
    return capturing ? CAPTURE_UNSUPPORTED : SUCCESS;
}

Result submit(Stream* stream, Work work) {
    Graph* graph = known(stream).capture;
    if (!graph) return perform(work);
    graph->add(std::move(work));
    return SUCCESS;
}

// Streams.

ENTRY cuStreamCreate(Stream** stream, u32) {
    return entered([&] {
        *stream = new Stream;
        streams.insert(*stream);
        return SUCCESS;
    });
}
ENTRY cuStreamCreateWithPriority(Stream** stream, u32 flags, int) { return cuStreamCreate(stream, flags); }
ENTRY cuStreamDestroy_v2(Stream* stream) {
    return entered([&] {
        if (!streams.erase(stream)) return INVALID_HANDLE;
        delete stream;
        return SUCCESS;
    });
}
ENTRY cuStreamSynchronize(Stream* stream) {
    return entered([&] { return known(stream).capture ? CAPTURE_UNSUPPORTED : SUCCESS; });
}
ENTRY cuStreamQuery(Stream* stream) { return cuStreamSynchronize(stream); }
ENTRY cuStreamWaitEvent(Stream* stream, Event* event, u32) {
    return entered([&] {
        if (event->capture) known(stream).capture = event->capture;
        return SUCCESS;
    });
}

// Events.

ENTRY cuEventCreate(Event** event, u32) {
    return entered([&] {
        *event = new Event;
        return SUCCESS;
    });
}
ENTRY cuEventDestroy_v2(Event* event) {
    delete event;
    return SUCCESS;
}
ENTRY cuEventRecord(Event* event, Stream* stream) {
    return entered([&] {
        event->capture = known(stream).capture;
        event->recorded = true;
        event->time = std::chrono::steady_clock::now();
        return SUCCESS;
    });
}
ENTRY cuEventQuery(Event* event) {
    return entered([&] { return event->capture ? CAPTURE_UNSUPPORTED : SUCCESS; });
}
ENTRY cuEventSynchronize(Event* event) { return cuEventQuery(event); }
ENTRY cuEventElapsedTime(float* milliseconds, const Event* start, const Event* end) {
    return entered([&] {
        if (!start->recorded || !end->recorded) return INVALID_HANDLE;
        *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
        return SUCCESS;
    });
}
ENTRY cuEventElapsedTime_v2(float* milliseconds, const Event* start, const Event* end) {
    return cuEventElapsedTime(milliseconds, start, end);
}

// Captures.

ENTRY cuStreamBeginCapture_v2(Stream* stream, int) {
    return entered([&] {
        // The default stream can't be captured.
        if (reinterpret_cast<u64>(stream) <= 2) return CAPTURE_UNSUPPORTED;
        if (stream->capture) return INVALID_VALUE;
        stream->capture = new Graph;
        stream->began_capture = true;
        return SUCCESS;
    });
}
ENTRY cuStreamEndCapture(Stream* stream, Graph** graph) {
    return entered([&] {
        Stream& origin = known(stream);
        *graph = nullptr;
        if (!origin.capture || !origin.began_capture) return INVALID_VALUE;
        *graph = origin.capture;
        for (Stream* other : streams) {
            if (other->capture == *graph) other->capture = nullptr;
        }
        origin.began_capture = false;
        return SUCCESS;
    });
}
ENTRY cuStreamIsCapturing(Stream* stream, int* status) {
    return entered([&] {
        *status = known(stream).capture ? 1 : 0;
        return SUCCESS;
    });
}
ENTRY cuThreadExchangeStreamCaptureMode(int*) { return SUCCESS; }

// Graphs.

struct KernelNodeParams {
    const void* function;
    Shape shape;
    void **arguments, **extra;
    void *kernel, *context;
};

// What a copy node is given; only rows of one plain range are copied here.
struct CopyNodeParams {
    struct Side {
        size_t x, y, z, level;
        u32 type;
        const void* host;
        u64 device;
        void *array, *reserved;
        size_t pitch, height;
    };
    Side from, to;
    size_t width, height, depth;
};

struct FillNodeParams {
    u64 to;
    size_t pitch;
    u32 value, width;
    size_t count, height;
};

ENTRY cuGraphCreate(Graph** graph, u32) {
    return entered([&] {
        *graph = new Graph;
        return SUCCESS;
    });
}
ENTRY cuGraphDestroy(Graph* graph) {
    delete graph;
    return SUCCESS;
}
ENTRY cuGraphAddEmptyNode(void** node, Graph* graph, void* const*, size_t) {
    return entered([&] { return keep(graph, node, NoWork{}); });
}
ENTRY cuGraphAddKernelNode_v2(void** node, Graph* graph, void* const*, size_t, const KernelNodeParams* p) {
    return entered([&] {
        LaunchWork work;
        const Result made = make_launch(p->function, p->shape, p->arguments, p->extra, &work);
        return made ? made : keep(graph, node, std::move(work));
    });
}
ENTRY cuGraphAddMemcpyNode(void** node, Graph* graph, void* const*, size_t, const CopyNodeParams* p, void*) {
    constexpr u32 HOST = 1, DEVICE_MEMORY = 2, UNIFIED = 4;
    const auto address = [](const CopyNodeParams::Side& side) {
        return side.x + (side.type == HOST ? reinterpret_cast<u64>(side.host) : side.device);
    };
    const auto is_plain = [](const CopyNodeParams::Side& side) {
        return !side.y && !side.z && (side.type == HOST || side.type == DEVICE_MEMORY || side.type == UNIFIED);
    };
    return entered([&] {
        if (p->height != 1 || p->depth != 1 || !is_plain(p->from) || !is_plain(p->to)) return NOT_SUPPORTED;
        const bool to_device = p->to.type == DEVICE_MEMORY, from_device = p->from.type == DEVICE_MEMORY;
        return keep(graph, node, CopyWork{address(p->to), address(p->from), p->width, to_device, from_device});
    });
}
ENTRY cuGraphAddMemsetNode(void** node, Graph* graph, void* const*, size_t, const FillNodeParams* p, void*) {
    return entered([&] {
        if (p->height != 1 || (p->width != 1 && p->width != 2 && p->width != 4)) return INVALID_VALUE;
        return keep(graph, node, FillWork{p->to, p->value, p->width, p->count});
    });
}

ENTRY cuGraphGetNodes(Graph* graph, Node** nodes, size_t* count) {
    return entered([&] {
        const size_t all = graph->nodes.size();
        for (size_t i = 0; nodes && i < std::min(*count, all); i++) nodes[i] = graph->nodes[i].get();
        *count = nodes ? std::min(*count, all) : all;
        return SUCCESS;
    });
}
ENTRY cuGraphNodeGetType(const Node* node, int* type) {
    constexpr int TYPES[] = {0, 1, 2, 3, 5}; // of the alternatives of `Work`: kernel, copy, fill, host, empty
    *type = TYPES[node->work.index()];
    return SUCCESS;
}
ENTRY cuGraphKernelNodeGetParams_v2(Node* node, KernelNodeParams* p) {
    return entered([&] {
        auto* work = std::get_if<LaunchWork>(&node->work);
        if (!work) return INVALID_VALUE;
        *p = KernelNodeParams{work->kernel, work->shape, work->argument_pointers(), nullptr, nullptr, nullptr};
        return SUCCESS;
    });
}
ENTRY cuGraphKernelNodeSetParams_v2(Node* node, const KernelNodeParams* p) {
    return entered([&] {
        if (!std::holds_alternative<LaunchWork>(node->work)) return INVALID_VALUE;
        LaunchWork work;
        const Result made = make_launch(p->function, p->shape, p->arguments, p->extra, &work);
        if (!made) node->work = std::move(work);
        return made;
    });
}

ENTRY cuGraphInstantiateWithFlags(Executable** executable, Graph* graph, u64) {
    return entered([&] {
        if (!graph) return INVALID_HANDLE;
        *executable = new Executable{graph->nodes, {}};
        for (const auto& node : graph->nodes) (*executable)->works.push_back(node->work);
        return SUCCESS;
    });
}
ENTRY cuGraphExecDestroy(Executable* executable) {
    delete executable;
    return SUCCESS;
}
ENTRY cuGraphUpload(Executable*, Stream*) {
    return entered([] { return SUCCESS; });
}
ENTRY cuGraphExecKernelNodeSetParams_v2(Executable* executable, const Node* node, const KernelNodeParams* p) {
    return entered([&] {
        const size_t i = node->index;
        if (i >= executable->origin.size() || executable->origin[i].get() != node) return INVALID_VALUE;
        auto* before = std::get_if<LaunchWork>(&executable->works[i]);
        if (!before) return INVALID_VALUE;
        LaunchWork work;
        const Result made = make_launch(p->function, p->shape, p->arguments, p->extra, &work);
        if (!made) *before = std::move(work);
        return made;
    });
}
// The arguments of `graph` for a graph of the same kinds of work in the same order.
ENTRY cuGraphExecUpdate_v2(Executable* executable, Graph* graph, void* report) {
    constexpr int UPDATED = 0, REFUSED = 1;
    return entered([&] {
        bool same = executable->works.size() == graph->nodes.size();
        for (size_t i = 0; same && i < graph->nodes.size(); i++) {
            same = executable->works[i].index() == graph->nodes[i]->work.index();
        }
        for (size_t i = 0; same && i < graph->nodes.size(); i++) executable->works[i] = graph->nodes[i]->work;
        const int result = same ? UPDATED : REFUSED;
        std::memcpy(report, &result, sizeof result);
        return same ? SUCCESS : GRAPH_UPDATE_REFUSED;
    });
}
ENTRY cuGraphLaunch(Executable* executable, Stream* stream) {
    return entered([&] {
        for (Work& work : executable->works) {
            const Result result = known(stream).capture ? submit(stream, work) : perform(work);
            if (result) return result;
        }
        return SUCCESS;
    });
}
