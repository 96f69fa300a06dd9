using System;
using System.Runtime.InteropServices;

namespace ZeroBuffer
{
    /// <summary>What an owner has handed out, to be released once.</summary>
    internal abstract class GuardHandle : NativeHandle
    {
        /// <summary>Null if it is free of its owner: then any thread may release it at any time.</summary>
        private OwnerHandle? _owner;

        protected GuardHandle(OwnerHandle? owner, string what) : base(false, what)
        {
            _owner = owner;
        }

        /// <summary>Releases what is held, if anything is.</summary>
        internal abstract void GiveBack();

        /// <summary>Whether nothing is held any more.</summary>
        protected abstract bool IsEmpty { get; }

        /// <summary>For a thread inside: its owner is entered too, if it has one, and to be left again.</summary>
        protected OwnerHandle? EnterOwner()
        {
            OwnerHandle? owner = _owner;
            if (owner != null)
            {
                owner.Enter();
            }
            return owner;
        }

        /// <summary>For a thread inside, and inside of its owner.</summary>
        protected void SetFree() => _owner = null;

        protected sealed override void ReleaseNative()
        {
            if (_owner == null || IsEmpty)
            {
                GiveBack();
            }
            else
            {
                _owner.GiveBack(this);
            }
        }
    }

    /// <summary>Bytes to fill, of a client or writer.</summary>
    internal sealed unsafe class BufferHandle : GuardHandle
    {
        private Native.Buffer _buffer;

        internal BufferHandle(OwnerHandle owner, Native.Buffer* buffer, string what) : base(owner, what)
        {
            _buffer = *buffer;
            SetHandle((IntPtr)buffer->Data);
        }

        /// <summary>Sends so many of the bytes. Afterwards it has ended, whether or not that worked.</summary>
        internal ulong Commit(long length)
        {
            Enter();
            try
            {
                OwnerHandle owner = EnterOwner()!;
                try
                {
                    return CommitInside(length, owner);
                }
                finally
                {
                    owner.Leave();
                }
            }
            finally
            {
                EndInside();
                Leave();
            }
        }

        private ulong CommitInside(long length, OwnerHandle owner)
        {
            ulong sequence;
            _buffer.Length = (UIntPtr)(ulong)length;
            fixed (Native.Buffer* buffer = &_buffer)
            {
                owner.ThrowIfFailed(Native.zb_buffer_commit(buffer, &sequence));
            }
            return sequence;
        }

        protected override bool IsEmpty => _buffer.Data == null;

        internal override void GiveBack()
        {
            fixed (Native.Buffer* buffer = &_buffer)
            {
                Native.zb_buffer_abandon(buffer);
            }
        }
    }

    /// <summary>A request that was received, in its server or detached from it.</summary>
    internal sealed unsafe class RequestHandle : GuardHandle
    {
        private OwnerHandle? _entered;

        internal RequestHandle(OwnerHandle? server, Native.Frame* frame) : base(server, "Request")
        {
            SetHandle(Marshal.AllocHGlobal(sizeof(Native.Frame)));
            *Frame = *frame;
        }

        /// <summary>To be used inside.</summary>
        internal Native.Frame* Frame => (Native.Frame*)handle;

        /// <summary>Enters it together with the server that it is still in.</summary>
        internal void EnterBoth()
        {
            Enter();
            try
            {
                _entered = EnterOwner();
            }
            catch (ObjectDisposedException)
            {
                Leave();
                throw;
            }
        }

        internal void LeaveBoth()
        {
            OwnerHandle? entered = _entered;
            if (entered != null)
            {
                entered.Leave();
            }
            Leave();
        }

        internal void Detach()
        {
            EnterBoth();
            try
            {
                ThrowIfFailed(Native.zb_frame_detach(Frame));
                if (_entered != null)
                {
                    _entered.HandOut(null);
                }
                SetFree();
            }
            finally
            {
                LeaveBoth();
            }
        }

        /// <summary>Answers it, with a failure if there is a message. Afterwards it has ended, whether or not that worked.</summary>
        internal void Answer(string? failure)
        {
            EnterBoth();
            try
            {
                ThrowIfFailed(failure == null ? Native.zb_frame_respond(Frame) : Interop.Fail(Frame, failure));
            }
            finally
            {
                EndInside();
                LeaveBoth();
            }
        }

        protected override bool IsEmpty => Frame->Data == null;

        internal override void GiveBack()
        {
            Native.zb_frame_abandon(Frame);
            Marshal.FreeHGlobal(handle);
        }
    }
}
