using System.Runtime.InteropServices;

namespace ZeroBuffer
{
    /// <summary>Is told of a frame, for programs that name it: nothing here calls one.</summary>
    public delegate void FrameCallback(in Frame frame);

    /// <summary>Numbers of version 1's wire format.</summary>
    public static class Constants
    {
        /// <summary>Bytes that sizes of blocks are rounded up to.</summary>
        public const int BlockAlignment = 64;
    }

    /// <summary>The version of a buffer of version 1, as its header has it.</summary>
    [StructLayout(LayoutKind.Sequential, Pack = 1)]
    public struct ProtocolVersion
    {
        /// <summary>Those that differ in it do not understand each other.</summary>
        public byte Major;

        /// <summary>What was added.</summary>
        public byte Minor;

        /// <summary>What was mended.</summary>
        public byte Patch;

        /// <summary>0.</summary>
        public byte Reserved;

        /// <summary>That version.</summary>
        public ProtocolVersion(byte major, byte minor = 0, byte patch = 0)
        {
            Major = major;
            Minor = minor;
            Patch = patch;
            Reserved = 0;
        }

        /// <summary>Whether the major version is the same.</summary>
        public bool IsCompatibleWith(ProtocolVersion other) => Major == other.Major;
    }

    /// <summary>
    /// The header of a buffer of version 1, for programs that look at <c>/dev/shm</c> themselves; see docs/protocol-v1.md. What a
    /// peer changes meanwhile, a copy of it does not show.
    /// </summary>
    /// <example>
    /// <code>
    /// var header = MemoryMarshal.Read&lt;OIEB&gt;(File.ReadAllBytes("/dev/shm/" + name));
    /// Console.WriteLine(header.PayloadWrittenCount - header.PayloadReadCount); // frames that nobody has read
    /// </code>
    /// </example>
    [StructLayout(LayoutKind.Explicit, Size = 128)]
    public struct OIEB
    {
        /// <summary>Bytes of this.</summary>
        public static readonly int SIZE = Marshal.SizeOf<OIEB>();

        /// <summary>128.</summary>
        [FieldOffset(0x00)] public uint OiebSize;

        /// <summary>1.0.0.</summary>
        [FieldOffset(0x04)] public ProtocolVersion Version;

        /// <summary>Bytes of the metadata block.</summary>
        [FieldOffset(0x08)] public ulong MetadataSize;

        /// <summary>Bytes of it that nobody has written.</summary>
        [FieldOffset(0x10)] public ulong MetadataFreeBytes;

        /// <summary>Bytes of it that were written, the eight of the length included.</summary>
        [FieldOffset(0x18)] public ulong MetadataWrittenBytes;

        /// <summary>Bytes of the ring.</summary>
        [FieldOffset(0x20)] public ulong PayloadSize;

        /// <summary>Bytes of it that can be written.</summary>
        [FieldOffset(0x28)] public ulong PayloadFreeBytes;

        /// <summary>Where the next frame is written.</summary>
        [FieldOffset(0x30)] public ulong PayloadWritePos;

        /// <summary>Where the next frame is read.</summary>
        [FieldOffset(0x38)] public ulong PayloadReadPos;

        /// <summary>Frames and wrap markers that were written.</summary>
        [FieldOffset(0x40)] public ulong PayloadWrittenCount;

        /// <summary>Those of them that were read.</summary>
        [FieldOffset(0x48)] public ulong PayloadReadCount;

        /// <summary>The writer's process; 0 if there is none.</summary>
        [FieldOffset(0x50)] public ulong WriterPid;

        /// <summary>The reader's process; 0 if there is none.</summary>
        [FieldOffset(0x58)] public ulong ReaderPid;

        /// <summary>Bytes between the two positions: what was written and not read. A full ring has none.</summary>
        public readonly ulong CalculateUsedBytes() =>
            PayloadWritePos >= PayloadReadPos ? PayloadWritePos - PayloadReadPos : PayloadSize - PayloadReadPos + PayloadWritePos;

        /// <summary>Whether so many bytes can be written.</summary>
        public readonly bool HasSpaceFor(ulong frameSize) => PayloadFreeBytes >= frameSize;
    }

    /// <summary>What comes before the bytes of each frame of version 1.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct FrameHeader
    {
        /// <summary>Bytes of this.</summary>
        public static readonly int SIZE = Marshal.SizeOf<FrameHeader>();

        /// <summary>The frame's bytes.</summary>
        public ulong PayloadSize;

        /// <summary>The frame's number.</summary>
        public ulong SequenceNumber;

        /// <summary>Whether it is no frame, but says that the next one lies at the ring's beginning.</summary>
        public bool IsWrapMarker => PayloadSize == 0;
    }
}
