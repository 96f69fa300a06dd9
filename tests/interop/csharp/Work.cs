using System;

/// <summary>What servers do to requests.</summary>
internal static unsafe class Work
{
    /// <summary>Byte 0 becomes 't', every other byte b becomes 255 − b.</summary>
    internal static void Transform(Span<byte> data)
    {
        Invert(data);
        if (data.Length > 0)
        {
            data[0] = (byte)'t';
        }
    }

    /// <summary>Eight bytes at a time: the compiler does not.</summary>
    internal static void Invert(Span<byte> data)
    {
        fixed (byte* bytes = &System.Runtime.InteropServices.MemoryMarshal.GetReference(data))
        {
            int index = 0;
            for (; index + 8 <= data.Length; index += 8)
            {
                *(ulong*)(bytes + index) ^= ulong.MaxValue;
            }
            for (; index < data.Length; index++)
            {
                bytes[index] ^= 255;
            }
        }
    }
}

/// <summary>Requests of one size, and their answers: windows of the same bytes, each a byte further on.</summary>
internal sealed class Contents
{
    private const int Rounds = 4096;

    private readonly byte[] _sent;
    private readonly byte[] _answered;

    internal Contents(int size)
    {
        Size = size;
        _sent = new byte[size + Rounds];
        new Random().NextBytes(_sent);
        _answered = (byte[])_sent.Clone();
        Work.Invert(_answered);
    }

    internal int Size { get; private set; }

    /// <summary>Writes the request of a round.</summary>
    internal void Fill(char op, int round, Span<byte> request)
    {
        new Span<byte>(_sent, round % Rounds, Size).CopyTo(request);
        request[0] = (byte)op;
    }

    /// <summary>Looks at every byte of the answer to a round.</summary>
    internal void Check(int round, ReadOnlySpan<byte> answer)
    {
        Expect.That(answer.Length == Size, answer.Length + " bytes instead of " + Size);
        Expect.That(answer[0] == 't', "byte 0 is " + answer[0] + " instead of 't'");
        var expected = new ReadOnlySpan<byte>(_answered, round % Rounds, Size);
        if (!answer.Slice(1).SequenceEqual(expected.Slice(1)))
        {
            int wrong = 1;
            while (answer[wrong] == expected[wrong])
            {
                wrong++;
            }
            throw new Exception("round " + round + ": byte " + wrong + " is wrong");
        }
    }
}

internal static class Expect
{
    internal static void That(bool holds, string otherwise)
    {
        if (!holds)
        {
            throw new Exception(otherwise);
        }
    }
}
