# cython: language_level=3, binding=False, embedsignature=True
"""Whole messages in and out of ZeroMQ sockets with one call each, for CPython; ``reliable/messages.py`` is its only user.

* **One libzmq.** This module links none: ``attach`` is handed the addresses of functions in the one that pyzmq loaded. The
  sockets belong to that one, and a second copy would take their addresses for rubbish.
* **The GIL is kept.** No call here waits, and most take less than a microsecond. pyzmq gives the GIL away at every frame,
  and a thread that computes may then keep it for as long as its switch interval, 5 ms.
* **Nothing of Python runs between the frames of a message**, so that no signal handler can leave half of one behind.
* **Large frames are sent without a copy.** libzmq then says from a thread of its own when it is done with them, maybe after
  the interpreter's end. That call touches nothing of Python: it puts the frame on a list, and the next call of ours
  lets go of it.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport EAGAIN, EINTR, ENOTSOCK
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from zmq.error import Again, ContextTerminated, ZMQError

cdef extern from *:
    """
    /* zmq_msg_t: 64 bytes, aligned as a pointer, in every libzmq 4. */
    typedef struct { void *aligned; unsigned char rest[64 - sizeof(void *)]; } message_t;

    /* Frames that libzmq has sent and that Python still holds: a stack that any thread may push to. */
    typedef struct sent_t { struct sent_t *next; PyObject *frame; } sent_t;
    static sent_t *sent_frames = NULL;

    static void frame_was_sent(void *data, void *hint) {
        sent_t *sent = (sent_t *) hint;
        (void) data;
        sent->next = __atomic_load_n(&sent_frames, __ATOMIC_RELAXED);
        while (!__atomic_compare_exchange_n(&sent_frames, &sent->next, sent, 1, __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {}
    }

    static sent_t *take_sent_frames(void) {
        if (__atomic_load_n(&sent_frames, __ATOMIC_RELAXED) == NULL) return NULL;
        return __atomic_exchange_n(&sent_frames, NULL, __ATOMIC_ACQUIRE);
    }
    """
    ctypedef struct message_t:
        pass
    ctypedef struct sent_t:
        sent_t* next
        PyObject* frame
    void frame_was_sent(void* data, void* hint) noexcept nogil
    sent_t* take_sent_frames() noexcept nogil

cdef extern from "Python.h":
    void* PyLong_AsVoidPtr(object number) except? NULL

ctypedef int (*on_message_t)(message_t*) noexcept nogil
ctypedef int (*init_size_t)(message_t*, size_t) noexcept nogil
ctypedef void (*when_sent_t)(void*, void*) noexcept nogil
ctypedef int (*init_data_t)(message_t*, void*, size_t, when_sent_t, void*) noexcept nogil
ctypedef int (*transfer_t)(message_t*, void*, int) noexcept nogil
ctypedef void* (*data_t)(message_t*) noexcept nogil
ctypedef size_t (*size_of_t)(message_t*) noexcept nogil
ctypedef int (*errno_t)() noexcept nogil

cdef on_message_t msg_init = NULL
cdef on_message_t msg_close = NULL
cdef on_message_t msg_more = NULL
cdef init_size_t msg_init_size = NULL
cdef init_data_t msg_init_data = NULL
cdef transfer_t msg_send = NULL
cdef transfer_t msg_recv = NULL
cdef data_t msg_data = NULL
cdef size_of_t msg_size = NULL
cdef errno_t last_errno = NULL

cdef enum:
    NOW = 1  # ZMQ_DONTWAIT
    MORE = 2  # ZMQ_SNDMORE
    TERMINATED = 156384765  # ETERM
    USUAL_FRAMES_MAX = 16
    UNCOPIED_BYTES = 32768

UNCOPIED_BYTES_MIN = UNCOPIED_BYTES


def attach(dict addresses not None):
    """Use these functions from now on: the names of libzmq to their addresses. ``KeyError`` if one is missing."""
    global msg_init, msg_close, msg_more, msg_init_size, msg_init_data, msg_send, msg_recv, msg_data, msg_size, last_errno
    msg_init = <on_message_t> PyLong_AsVoidPtr(addresses["zmq_msg_init"])
    msg_close = <on_message_t> PyLong_AsVoidPtr(addresses["zmq_msg_close"])
    msg_more = <on_message_t> PyLong_AsVoidPtr(addresses["zmq_msg_more"])
    msg_init_size = <init_size_t> PyLong_AsVoidPtr(addresses["zmq_msg_init_size"])
    msg_init_data = <init_data_t> PyLong_AsVoidPtr(addresses["zmq_msg_init_data"])
    msg_send = <transfer_t> PyLong_AsVoidPtr(addresses["zmq_msg_send"])
    msg_recv = <transfer_t> PyLong_AsVoidPtr(addresses["zmq_msg_recv"])
    msg_data = <data_t> PyLong_AsVoidPtr(addresses["zmq_msg_data"])
    msg_size = <size_of_t> PyLong_AsVoidPtr(addresses["zmq_msg_size"])
    last_errno = <errno_t> PyLong_AsVoidPtr(addresses["zmq_errno"])


cdef void* _handle(socket) except NULL:
    """libzmq's socket; pyzmq forgets it when it is closed."""
    cdef void* handle = PyLong_AsVoidPtr(socket.underlying)
    if handle is NULL:
        raise ZMQError(ENOTSOCK)
    return handle


cdef int _raise(int number) except -1:
    if number == EAGAIN:
        raise Again(number)
    if number == TERMINATED:
        raise ContextTerminated(number)
    raise ZMQError(number)


cdef void _let_go():
    """Of the frames that libzmq has sent meanwhile."""
    cdef sent_t* sent = take_sent_frames()
    cdef sent_t* following
    while sent is not NULL:
        following = sent.next
        Py_DECREF(<object> sent.frame)
        free(sent)
        sent = following


# --- receiving ------------------------------------------------------------------------------------


cdef list _receive(void* handle, message_t* message):
    """The next message, or None if there is none. ``message`` is initialised, and keeps the last frame."""
    cdef list frames = None
    cdef int number
    while True:
        while msg_recv(message, handle, NOW) == -1:
            number = last_errno()
            if number == EAGAIN and frames is None:
                return None
            # Signal handlers run when this call has returned: here they could cost a message that was received.
            if number != EINTR:
                _raise(number)
        try:
            frame = PyBytes_FromStringAndSize(<char*> msg_data(message), <Py_ssize_t> msg_size(message))
            if frames is None:
                frames = [frame]
            else:
                frames.append(frame)
        except MemoryError:
            # The rest must not be taken for a message of its own.
            while msg_more(message) and (msg_recv(message, handle, NOW) != -1 or last_errno() == EINTR):
                pass
            raise
        if not msg_more(message):
            return frames


def read_message(socket):
    """See ``reliable.messages.read_message``."""
    cdef void* handle = _handle(socket)
    cdef message_t message
    _let_go()
    msg_init(&message)
    try:
        return _receive(handle, &message)
    finally:
        msg_close(&message)


def read_messages(socket, Py_ssize_t limit):
    """See ``reliable.messages.read_messages``."""
    cdef void* handle = _handle(socket)
    cdef message_t message
    cdef list frames
    cdef list messages = []
    _let_go()
    msg_init(&message)
    try:
        while len(messages) < limit:
            frames = _receive(handle, &message)
            if frames is None:
                break
            messages.append(frames)
    except ZMQError:
        # What came before the end of the context or the socket is not lost; the next call raises.
        if not messages:
            raise
    finally:
        msg_close(&message)
    return messages


# --- sending --------------------------------------------------------------------------------------


cdef int _load(message_t* message, object frame) except -1:
    """Make a message of libzmq from a frame; large ones are lent."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(frame)
    cdef sent_t* sent
    if size < UNCOPIED_BYTES:
        if msg_init_size(message, <size_t> size) == -1:
            raise MemoryError
        memcpy(msg_data(message), PyBytes_AS_STRING(frame), <size_t> size)
        return 0
    sent = <sent_t*> malloc(sizeof(sent_t))
    if sent is NULL:
        raise MemoryError
    sent.frame = <PyObject*> frame
    if msg_init_data(message, PyBytes_AS_STRING(frame), <size_t> size, frame_was_sent, sent) == -1:
        free(sent)
        raise MemoryError
    Py_INCREF(frame)
    return 0


cdef int _send_all(void* handle, message_t* messages, Py_ssize_t last, list frames) except -1:
    cdef Py_ssize_t loaded = 0, index = 0
    cdef int number = 0
    try:
        for frame in frames:
            _load(&messages[loaded], frame)
            loaded += 1
        while index <= last:
            if msg_send(&messages[index], handle, NOW | MORE if index < last else NOW) == -1:
                if last_errno() == EINTR:
                    continue
                if number == 0:
                    number = last_errno()
                if number != EAGAIN or index == 0:
                    break
                # The peer went away in the middle of the message. libzmq drops its rest, but wants to be given it: it
                # would take the next message for that.
                msg_close(&messages[index])
            index += 1
    finally:
        while index < loaded:
            msg_close(&messages[index])
            index += 1
    if number != 0:
        _raise(number)
    return 0


cdef bint _all_bytes(list frames):
    for frame in frames:
        if not PyBytes_CheckExact(frame):
            return False
    return True


def send_message(socket, list frames not None):
    """See ``reliable.messages.send_message``."""
    cdef void* handle = _handle(socket)
    cdef message_t[USUAL_FRAMES_MAX] usual
    cdef message_t* messages = usual
    cdef Py_ssize_t count = len(frames)
    if count == 0:
        raise IndexError("a message has at least one frame")
    _let_go()
    if not _all_bytes(frames):
        frames = [bytes(memoryview(frame)) for frame in frames]
    if count > USUAL_FRAMES_MAX:
        messages = <message_t*> malloc(<size_t> count * sizeof(message_t))
        if messages is NULL:
            raise MemoryError
    try:
        _send_all(handle, messages, count - 1, frames)
    finally:
        if messages is not usual:
            free(messages)
