using System;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

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
        private readonly Action<Exception> _report;
        private readonly Native.Handler _callback;

        private HandlerThunk(Action<Frame> handler, Action<Exception> report)
        {
            _handler = handler;
            _report = report;
            _callback = Run;
        }

        /// <summary>The handler, if it can be one. Of a method that is async and returns nothing the compiler tells nobody.</summary>
        internal static Action<Frame> Checked(Action<Frame> handler)
        {
            if (handler == null)
            {
                throw new ArgumentNullException("handler");
            }
            foreach (Delegate one in handler.GetInvocationList())
            {
                if (one.Method.IsDefined(typeof(AsyncStateMachineAttribute), false))
                {
                    throw new ArgumentException(ReturnsNothing, "handler");
                }
            }
            return handler;
        }

        /// <summary>What the handler throws, <paramref name="report"/> is told.</summary>
        internal static void Start(IntPtr server, Action<Frame> handler, Action<Exception> report)
        {
            var thunk = new HandlerThunk(handler, report);
            // Alive until the native library says that nobody calls it any more.
            IntPtr user = GCHandle.ToIntPtr(GCHandle.Alloc(thunk));
            IntPtr callback = Marshal.GetFunctionPointerForDelegate(thunk._callback);
            ZeroBufferException.ThrowIfFailed(Native.zb_server_start(server, callback, user, ReleasedPointer));
        }

        private static void Release(IntPtr user) => GCHandle.FromIntPtr(user).Free();

        /// <summary>Throws nothing: an exception must not leave managed code.</summary>
        private int Run(Native.Frame* native, IntPtr user)
        {
            var frame = new HandlerFrame(native);
            Exception error = null;
            try
            {
                _handler(frame);
            }
            catch (Exception failure)
            {
                error = failure;
            }
            frame.End();
            if (error == null)
            {
                return 0;
            }
            _report(error);
            return Explain(native, error);
        }

        private static int Explain(Native.Frame* native, Exception error)
        {
            try
            {
                Interop.Fail(native, error.Message);
            }
            catch (Exception)
            {
                // Then the client gets the native library's own words for what is returned.
            }
            return 1;
        }
    }
}
