"""The node's executor: what waits for a thread is handed over once, and everything has its turn."""

import threading
import time

import pytest
import rclpy
from rclpy.callback_groups import ReentrantCallbackGroup

from activeo3_ros.node.executor import QuietExecutor, spin_until_shutdown


@pytest.fixture
def context():
    context = rclpy.Context()
    rclpy.init(context=context)
    yield context
    rclpy.try_shutdown(context=context)


def test_callbacks_that_wait_for_a_thread_are_handed_over_once_and_run_in_the_end(context):
    """Six callbacks are ready and two threads are busy: rclpy's executor hands the others over hundreds of times."""
    node = rclpy.create_node("busy", context=context)
    executor = QuietExecutor(2, context)
    executor.add_node(node)
    begun, go_on, handed_over = [], threading.Event(), []
    submit = executor._executor.submit
    executor._executor.submit = lambda *task: handed_over.append(task) or submit(*task)

    def work(number):
        timers[number].cancel()
        begun.append(number)
        go_on.wait(30)

    group = ReentrantCallbackGroup()
    timers = [node.create_timer(0.01, lambda n=n: work(n), group) for n in range(6)]
    stop = threading.Event()

    def spin():
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    wait_until(lambda: len(begun) == 2)
    time.sleep(0.5)  # in which rclpy's own would go round and round
    while_busy = len(handed_over)
    go_on.set()
    wait_until(lambda: sorted(begun) == list(range(6)))
    stop.set()
    thread.join(30)
    executor.shutdown(timeout_sec=0.0)
    node.destroy_node()
    assert while_busy <= 20


def test_it_ends_with_its_context_where_nothing_wakes_it(context):
    """A signal between two waits: rclpy wakes the executor first and ends the context after that; rclpy.spin hangs."""
    node = rclpy.create_node("waiting", context=context)
    served = []
    timer = node.create_timer(0.01, lambda: served.append(1) or timer.cancel())
    thread = threading.Thread(target=spin_until_shutdown, args=(node,), daemon=True)
    thread.start()
    wait_until(lambda: served)
    with context.handle:
        context.handle.shutdown()  # what rclpy's handler of signals does, without the callbacks of rclpy.shutdown
    thread.join(30)
    assert not thread.is_alive()
    node.destroy_node()


def wait_until(is_true):
    ends = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < ends, "waited 30 s in vain"
        time.sleep(0.01)
