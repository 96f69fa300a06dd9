using System;
using System.Runtime.InteropServices;

namespace ZeroBuffer
{
    /// <summary>A native handle, closed once: by its owner, or by the collector.</summary>
    internal abstract class NativeHandle : SafeHandle
    {
        protected NativeHandle() : base(IntPtr.Zero, true)
        {
        }

        /// <inheritdoc/>
        public override bool IsInvalid
        {
            get { return handle == IntPtr.Zero; }
        }

        /// <summary>Takes over what a native function has made.</summary>
        internal void Take(IntPtr made)
        {
            SetHandle(made);
        }
    }

    internal sealed class ServerHandle : NativeHandle
    {
        protected override bool ReleaseHandle()
        {
            Native.zb_server_close(handle);
            return true;
        }
    }

    internal sealed class ClientHandle : NativeHandle
    {
        protected override bool ReleaseHandle()
        {
            Native.zb_client_close(handle);
            return true;
        }
    }

    internal sealed class ReaderHandle : NativeHandle
    {
        protected override bool ReleaseHandle()
        {
            Native.zb_reader_close(handle);
            return true;
        }
    }

    internal sealed class WriterHandle : NativeHandle
    {
        protected override bool ReleaseHandle()
        {
            Native.zb_writer_close(handle);
            return true;
        }
    }

    /// <summary>A request that was detached from its server, to be answered once.</summary>
    internal sealed unsafe class DetachedFrameHandle : NativeHandle
    {
        internal Native.Frame* Frame
        {
            get { return (Native.Frame*)handle; }
        }

        protected override bool ReleaseHandle()
        {
            Native.zb_frame_abandon(Frame);
            Marshal.FreeHGlobal(handle);
            return true;
        }
    }
}
