//! The driver's own behaviour: graphs, captures, limits, and the mistakes that it notices.

mod common;

use common::{Device, Words, noise, open};
use cudarc::driver::result::{self as driver, DriverError};
use cudarc::driver::sys::{self, CUresult};
use tangelo_emulator::{Setting, allocated, launches, set};

fn code<T>(result: Result<T, DriverError>) -> Option<CUresult> {
    result.err().map(|e| e.0)
}

/// As in kernel.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Line {
    scale: f32,
    shift: f32,
    count: u64,
}

fn floats(words: &Words) -> Vec<f32> {
    words.read().into_iter().map(f32::from_bits).collect()
}

fn line_node(device: &Device, args: common::Args<'_>) -> sys::CUDA_KERNEL_NODE_PARAMS {
    sys::CUDA_KERNEL_NODE_PARAMS {
        func: device.function("test_line").expect("the kernel exists"),
        gridDimX: 1,
        gridDimY: 1,
        gridDimZ: 1,
        blockDimX: 128,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: 0,
        kernelParams: args.as_mut_ptr(),
        extra: std::ptr::null_mut(),
        kern: std::ptr::null_mut(),
        ctx: std::ptr::null_mut(),
    }
}

#[test]
fn a_graph_keeps_its_arguments_until_they_are_changed() {
    let Some(device) = open() else { return };
    let ones = [1f32.to_bits(); 100];
    let (x, y, z) = (Words::of(&ones), Words::new(100), Words::new(100));
    let mut line = Line { scale: 2.0, shift: 1.0, count: 100 };
    // SAFETY: handles are used while they live, arguments are those of the kernel.
    unsafe {
        let mut graph = std::ptr::null_mut();
        sys::cuGraphCreate(&mut graph, 0).result().expect("a graph");
        let mut nodes = [std::ptr::null_mut(); 2];
        let first = line_node(&device, args!(x.address, y.address, line, 0u32));
        sys::cuGraphAddKernelNode_v2(&mut nodes[0], graph, std::ptr::null(), 0, &first)
            .result()
            .expect("a node");
        let second = line_node(&device, args!(y.address, z.address, line, 0u32));
        let before = nodes[0];
        sys::cuGraphAddKernelNode_v2(&mut nodes[1], graph, &before, 1, &second).result().expect("a node");
        line.scale = f32::NAN; // The nodes have copies.
        let exec =
            driver::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0)).expect("an executable");
        driver::graph::launch(exec, device.stream).expect("it runs");
        assert_eq!(floats(&z), [7.0; 100], "2·(2·1 + 1) + 1");

        line.scale = 10.0;
        let changed = line_node(&device, args!(y.address, z.address, line, 0u32));
        sys::cuGraphExecKernelNodeSetParams_v2(exec, nodes[1], &changed).result().expect("new arguments");
        driver::graph::launch(exec, device.stream).expect("it runs");
        assert_eq!(floats(&z), [31.0; 100], "10·3 + 1");
        driver::graph::exec_destroy(exec).expect("destroyed");
        driver::graph::destroy(graph).expect("destroyed");
    }
}

#[test]
fn a_capture_becomes_a_graph() {
    let Some(device) = open() else { return };
    let (x, y) = (Words::of(&[0; 100]), Words::of(&[5; 100]));
    let line = Line { scale: 1.0, shift: 3.0, count: 100 };
    // SAFETY: as above; `input` outlives the launches that read it.
    unsafe {
        let mut input = vec![2f32; 100];
        driver::stream::begin_capture(device.stream, sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL)
            .expect("a capture");
        driver::memcpy_htod_async(x.address, &input, device.stream).expect("recorded");
        device.launch("test_line", 1, 128, args!(x.address, y.address, line, 0u32)).expect("recorded");
        driver::memset_d8_async(x.address, 0, 400, device.stream).expect("recorded");
        let refused = Some(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        assert_eq!(code(driver::stream::synchronize(device.stream)), refused);
        let graph = driver::stream::end_capture(device.stream).expect("a graph");
        assert_eq!(y.read(), [5; 100], "nothing has run");
        let exec =
            driver::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0)).expect("an executable");
        for shift in [5.0, 7.0] {
            driver::graph::launch(exec, device.stream).expect("it runs");
            assert_eq!((floats(&y), x.read()), (vec![shift; 100], vec![0; 100]));
            input.fill(4.0); // The copy reads when it runs.
        }
    }
}

#[test]
fn shared_memory_beyond_the_default_must_be_asked_for() {
    let Some(device) = open() else { return };
    let bytes = 64u32 << 10;
    let input = noise(bytes as usize / 4, 1);
    let (from, to) = (Words::of(&input), Words::new(input.len()));
    let reverse = |threads| {
        let count = input.len() as u32;
        device.launch_shared(
            "test_reverse_dynamically",
            1,
            threads,
            bytes,
            args!(from.address, to.address, count),
        )
    };
    let invalid = Some(CUresult::CUDA_ERROR_INVALID_VALUE);
    assert_eq!(code(reverse(1024)), invalid);
    let most = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    let function = device.function("test_reverse_dynamically").expect("the kernel exists");
    // SAFETY: the function is the module's.
    let ask = |bytes| unsafe { driver::function::set_function_attribute(function, most, bytes) };
    assert_eq!(code(ask(100 << 10)), invalid, "more than a block can have");
    ask(99 << 10).expect("as much as a block can have");
    reverse(1024).expect("it runs");
    assert!(to.read().iter().eq(input.iter().rev()));
    assert_eq!(code(reverse(1025)), invalid, "threads");
    assert_eq!(
        code(device.launch("test_exchange", 1, 65, args!(to.address))),
        invalid,
        "threads of this kernel"
    );
    assert_eq!(code(device.launch("test_exchange", 0, 32, args!(to.address))), invalid, "an empty grid");
}

#[test]
fn mistakes_are_errors() {
    let Some(device) = open() else { return };
    let failed = Some(CUresult::CUDA_ERROR_LAUNCH_FAILED);
    let out = Words::new(100);
    assert!(out.read().iter().all(|&w| w == u32::MAX), "fresh memory is NaN");
    assert_eq!(code(device.launch("test_diverged", 1, 32, args!(out.address))), failed);
    assert_eq!(code(device.launch("test_beyond", 1, 1, args!(out.address, 100u32))), failed);
    assert_eq!(code(device.launch("test_beyond", 1, 1, args!(out.address, 99u32))), None);
    // Too little dynamic shared memory for what the kernel writes.
    let (from, count) = (Words::of(&[0; 100]), 100u32);
    let short =
        device.launch_shared("test_reverse_dynamically", 1, 32, 396, args!(from.address, out.address, count));
    assert_eq!(code(short), failed);
    // SAFETY: the driver refuses before it reads or writes.
    let beyond = unsafe { driver::memcpy_htod_sync(out.address + 4, &[0u32; 100]) };
    assert_eq!(code(beyond), Some(CUresult::CUDA_ERROR_INVALID_VALUE));
}

#[test]
fn memory_ends() {
    let Some(_device) = open() else { return };
    let before = allocated();
    set(Setting::Memory(before + 1000));
    // SAFETY: what is allocated is freed.
    unsafe {
        let half = driver::malloc_sync(600).expect("there is memory");
        assert_eq!(code(driver::malloc_sync(401)), Some(CUresult::CUDA_ERROR_OUT_OF_MEMORY));
        assert_eq!(driver::mem_get_info().expect("numbers").0, 400);
        driver::free_sync(half).expect("freed");
        assert_eq!(allocated(), before);
        assert_eq!(code(driver::free_sync(half)), Some(CUresult::CUDA_ERROR_INVALID_VALUE), "freed twice");
    }
    set(Setting::Memory(2 << 30));
}

#[test]
fn a_lost_device_stays_lost() {
    let Some(device) = open() else { return };
    let out = Words::new(256);
    let run = || code(device.launch("test_exchange", 1, 64, args!(out.address)));
    set(Setting::Fault(3));
    let lost = Some(CUresult::CUDA_ERROR_LAUNCH_FAILED);
    assert_eq!([run(), run(), run(), run()], [None, None, lost, lost]);
    assert_eq!(launches(), 3);
    // SAFETY: nothing is allocated by a lost device.
    assert_eq!(code(unsafe { driver::malloc_sync(4) }), lost);
    set(Setting::Fault(0));
    assert_eq!(run(), None);
}
