using System;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Threading;

namespace ZeroBuffer
{
    /// <summary>A handler as the native library calls it.</summary>
    internal sealed unsafe class HandlerThunk
    {
        internal const string ReturnsNothing =
            "a handler edits the frame and returns nothing; one that is async would not have finished when it returns";
        internal const string ReturnsBytes =
            "a handler returns a byte[], or nothing and calls Reply; one that is async would not have finished when it returns";

        /// <summary>For as long as the program runs, since it may be called on the way out.</summary>
        private static readonly Native.Release Released = Release;
        private static readonly IntPtr ReleasedPointer = Marshal.GetFunctionPointerForDelegate(Released);

        private readonly Action<Frame> _handler;
        private readonly DuplexServer _server;
        private readonly Native.Handler _callback;
        private volatile bool _wasStarted;
        private volatile bool _wasReleased;

        private HandlerThunk(Action<Frame> handler, DuplexServer server)
        {
            _handler = handler;
            _server = server;
            _callback = Run;
        }

        /// <summary>The handler, if it can be one. Of a method that is async and returns nothing the compiler tells nobody.</summary>
        internal static Action<Frame> Checked(Action<Frame> handler)
        {
            if (handler == null)
            {
                throw new ArgumentNullException(nameof(handler));
            }
            foreach (Delegate one in handler.GetInvocationList())
            {
                if (one.Method.IsDefined(typeof(AsyncStateMachineAttribute), false))
                {
                    throw new ArgumentException(ReturnsNothing, nameof(handler));
                }
            }
            return handler;
        }

        /// <summary><paramref name="server"/> is told what the handler throws, and when it is called no more.</summary>
        internal static void Start(IntPtr native, Action<Frame> handler, DuplexServer server)
        {
            var thunk = new HandlerThunk(handler, server);
            // Alive until the native library says that nobody calls it any more.
            IntPtr user = GCHandle.ToIntPtr(GCHandle.Alloc(thunk));
            IntPtr callback = Marshal.GetFunctionPointerForDelegate(thunk._callback);
            ZeroBufferException.ThrowIfFailed(Native.zb_server_start(native, callback, user, ReleasedPointer));
            thunk._wasStarted = true;
            // One of the two tells it, whichever comes later; a start that has failed is no end.
            Interlocked.MemoryBarrier();
            if (thunk._wasReleased)
            {
                server.HasEnded(null);
            }
        }

        private static void Release(IntPtr user)
        {
            GCHandle self = GCHandle.FromIntPtr(user);
            var thunk = (HandlerThunk)self.Target!;
            self.Free();
            thunk._wasReleased = true;
            Interlocked.MemoryBarrier();
            if (thunk._wasStarted)
            {
                thunk._server.HasEnded(null);
            }
        }

        /// <summary>Throws nothing: an exception must not leave managed code.</summary>
        private int Run(Native.Frame* native, IntPtr user)
        {
            Handling.OnThread = _server;
            try
            {
                Exception? error = Failure(new HandlerFrame(native));
                if (error == null)
                {
                    return 0;
                }
                // Whom it tells may stop the server, which would wait for this very handler.
                _server.Report(error);
                Interop.Fail(native, ErrorReport.Words(error));
                return 1;
            }
            finally
            {
                Handling.OnThread = null;
            }
        }

        /// <summary>What the handler has thrown, if anything.</summary>
        private Exception? Failure(HandlerFrame frame)
        {
            try
            {
                _handler(frame);
                return null;
            }
            catch (Exception failure)
            {
                return failure;
            }
            finally
            {
                frame.End();
            }
        }
    }
}
